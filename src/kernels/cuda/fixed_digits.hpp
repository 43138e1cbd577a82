#pragma once

#include <bit>
#include <cstdint>

#include "kernels/fixed128.hpp"

namespace reap::cuda {

/// to_digits() of kernels/fixed128.hpp, bit for bit, in integer arithmetic that host and device can both run.
/// @param digits  [kDigits]; undefined when the result is false
constexpr bool to_digits(double value, int fraction_bits, std::uint64_t* digits) {
  constexpr int kMantissaBits = 52;
  constexpr int kHighestExponent = 0x7ff;
  constexpr int kSumBits = 127;
  const auto bits = std::bit_cast<std::uint64_t>(value);
  const auto exponent = static_cast<int>(bits >> kMantissaBits & kHighestExponent);
  const std::uint64_t fraction = bits & ((std::uint64_t{1} << kMantissaBits) - 1);
  const bool is_zero = (bits << 1) == 0;
  if (exponent == kHighestExponent || ((bits >> 63) != 0 && !is_zero)) return false;
  // value = mantissa * 2^(shift - fraction_bits); a subnormal one is far below half a unit, whatever its mantissa
  const std::uint64_t mantissa = exponent == 0 ? 0 : fraction | (std::uint64_t{1} << kMantissaBits);
  const int shift = exponent - 1023 - kMantissaBits + fraction_bits;
  if (mantissa != 0 && kMantissaBits + 1 + shift > kSumBits) return false;
  std::uint64_t low = 0, high = 0;
  if (mantissa == 0 || shift < -(kMantissaBits + 1)) {
    low = 0;
  } else if (shift < 0) {  // to nearest even
    const std::uint64_t dropped = mantissa & ((std::uint64_t{1} << -shift) - 1);
    const std::uint64_t half = std::uint64_t{1} << (-shift - 1);
    low = mantissa >> -shift;
    low += dropped > half || (dropped == half && (low & 1) != 0) ? 1 : 0;
  } else if (shift >= 64) {
    high = mantissa << (shift - 64);
  } else {
    low = mantissa << shift;
    high = shift == 0 ? 0 : mantissa >> (64 - shift);
  }
  digits[0] = low & 0xffffffffU;
  digits[1] = low >> 32;
  digits[2] = high & 0xffffffffU;
  digits[3] = high >> 32;
  return true;
}

}  // namespace reap::cuda
