#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace reap {

/// Exact sums of non-negative reals (docs/numerics.md). A sum is four 32-bit digits in int64, lowest first, so that
/// digits can be added by plain, associative integer addition: atomics, MPI_SUM, ncclSum and merged files all
/// give the same bits in any order. A digit holds 2^31 additions before it must be normalised.
constexpr int kDigits = 4;
using Digits = std::array<std::int64_t, kDigits>;

/// Bits behind the binary point: Q63.64 for plain fields, Q95.32 for squares.
constexpr int kFractionBits = 64;
constexpr int kSquareFractionBits = 32;

/// Splits `value` into digits of 2^-fraction_bits units, rounding once, to nearest even.
/// @return false, with `digits` untouched, when value is negative, not finite or does not fit in 127 bits
bool to_digits(double value, int fraction_bits, Digits& digits);

/// Carries, so that every digit but the highest is in [0, 2^32). The canonical form, and the only one written to files.
/// @return false when the sum does not fit in 127 bits or a digit is negative
bool normalise(std::span<std::int64_t, kDigits> digits);

/// The sum as a double, rounded once to nearest even. Digits need not be normalised.
double to_double(std::span<const std::int64_t, kDigits> digits, int fraction_bits);

// The same for reals of either sign. A negative one has the digits of its magnitude, each negated; the canonical form
// carries downwards, so that only the highest digit, in [-2^31, 2^31), is negative when the sum is.

/// @return false, with `digits` untouched, when value is not finite or its magnitude does not fit in 127 bits
bool to_signed_digits(double value, int fraction_bits, Digits& digits);

/// @return false, with `digits` untouched, when the sum is outside [-2^127, 2^127)
bool normalise_signed(std::span<std::int64_t, kDigits> digits);

/// @param digits  normalised
double signed_to_double(std::span<const std::int64_t, kDigits> digits, int fraction_bits);

}  // namespace reap
