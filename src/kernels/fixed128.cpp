#include "kernels/fixed128.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/check.hpp"

namespace reap {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr int kDigitBits = 32;
constexpr std::uint64_t kDigitMask = 0xffffffffU;
constexpr int kSumBits = 127;
constexpr int kDoubleBits = 53;

/// value / 2^shift to nearest even, for shift > 0.
std::uint64_t shift_right(std::uint64_t value, int shift) {
  if (shift > kDoubleBits) return 0;  // less than half a unit
  const std::uint64_t kept = value >> shift;
  const std::uint64_t dropped = value & ((std::uint64_t{1} << shift) - 1);
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  const bool up = dropped > half || (dropped == half && (kept & 1) != 0);
  return kept + (up ? 1 : 0);
}

int bit_width(Wide value) {
  const auto upper = static_cast<std::uint64_t>(value >> 64);
  return upper != 0 ? 128 - std::countl_zero(upper) : 64 - std::countl_zero(static_cast<std::uint64_t>(value));
}

/// Digits with all carries taken: three of 32 bits and a highest one of up to 64.
/// @return false when a digit is negative
bool carried(std::span<const std::int64_t, kDigits> digits, std::array<std::uint64_t, kDigits>& out) {
  std::uint64_t carry = 0;
  for (std::size_t i = 0; i < kDigits; ++i) {
    if (digits[i] < 0) return false;
    out[i] = static_cast<std::uint64_t>(digits[i]) + carry;  // below 2^63 + 2^32
    if (i + 1 == kDigits) break;
    carry = out[i] >> kDigitBits;
    out[i] &= kDigitMask;
  }
  return true;
}

}  // namespace

bool to_digits(double value, int fraction_bits, Digits& digits) {
  if (!std::isfinite(value) || value < 0) return false;
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);  // value = fraction * 2^exponent, fraction in [1/2, 1)
  const auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, kDoubleBits));
  const int shift = exponent - kDoubleBits + fraction_bits;
  if (mantissa != 0 && kDoubleBits + shift > kSumBits) return false;
  Wide units = 0;
  if (mantissa != 0) units = shift >= 0 ? Wide{mantissa} << shift : Wide{shift_right(mantissa, -shift)};
  for (std::int64_t& digit : digits) {
    digit = static_cast<std::int64_t>(units & kDigitMask);
    units >>= kDigitBits;
  }
  return true;
}

bool normalise(std::span<std::int64_t, kDigits> digits) {
  constexpr int kHighestBits = kSumBits - (kDigits - 1) * kDigitBits;
  std::array<std::uint64_t, kDigits> canonical{};
  if (!carried(digits, canonical) || canonical.back() >> kHighestBits != 0) return false;
  std::transform(canonical.begin(), canonical.end(), digits.begin(),
                 [](std::uint64_t digit) { return static_cast<std::int64_t>(digit); });
  return true;
}

double to_double(std::span<const std::int64_t, kDigits> digits, int fraction_bits) {
  std::array<std::uint64_t, kDigits> canonical{};
  REAP_CHECK(carried(digits, canonical), "a sum has a negative digit");
  const Wide high = (Wide{canonical[3]} << kDigitBits) | canonical[2];  // up to 96 bits
  const std::uint64_t low = (canonical[1] << kDigitBits) | canonical[0];
  if (high == 0) return std::ldexp(static_cast<double>(low), -fraction_bits);
  // The 64 bits from the highest set one on, the last one standing for all that follow it, keep enough to round by:
  // their conversion to double is then the only rounding.
  const int width = bit_width(high);
  const std::uint64_t leading = width < 64 ? static_cast<std::uint64_t>(high << (64 - width)) | (low >> width)
                                           : static_cast<std::uint64_t>(high >> (width - 64));
  const Wide rest =
      width < 64 ? low & ((std::uint64_t{1} << width) - 1) : (high & ((Wide{1} << (width - 64)) - 1)) | low;
  const std::uint64_t sticky = rest != 0 ? 1 : 0;
  return std::ldexp(static_cast<double>(leading | sticky), width - fraction_bits);
}

bool to_signed_digits(double value, int fraction_bits, Digits& digits) {
  if (!to_digits(std::abs(value), fraction_bits, digits)) return false;
  if (value < 0) {
    for (std::int64_t& digit : digits) digit = -digit;
  }
  return true;
}

bool normalise_signed(std::span<std::int64_t, kDigits> digits) {
  __extension__ using SignedWide = __int128;
  constexpr SignedWide kHighest = SignedWide{1} << (kSumBits - (kDigits - 1) * kDigitBits);
  Digits canonical{};
  SignedWide carry = 0;
  for (std::size_t i = 0; i < kDigits; ++i) {
    const SignedWide sum = digits[i] + carry;
    if (i + 1 == kDigits && (sum < -kHighest || sum >= kHighest)) return false;
    carry = sum >> kDigitBits;  // towards minus infinity
    canonical[i] = static_cast<std::int64_t>(i + 1 == kDigits ? sum : sum - (carry << kDigitBits));
  }
  std::ranges::copy(canonical, digits.begin());
  return true;
}

double signed_to_double(std::span<const std::int64_t, kDigits> digits, int fraction_bits) {
  if (digits.back() >= 0) return to_double(digits, fraction_bits);
  Digits magnitude{};
  std::int64_t borrow = 0;
  for (std::size_t i = 0; i < kDigits; ++i) {
    magnitude[i] = -digits[i] - borrow;
    if (i + 1 == kDigits) break;
    borrow = magnitude[i] < 0 ? 1 : 0;
    magnitude[i] += borrow << kDigitBits;
  }
  return -to_double(magnitude, fraction_bits);
}

}  // namespace reap
