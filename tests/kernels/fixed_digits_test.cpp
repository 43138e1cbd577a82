#include "kernels/cuda/fixed_digits.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <random>

namespace reap {
namespace {

/// The digits that the GPU takes of a value must be those that the CPU takes.
void expect_equal_digits(double value) {
  for (const int fraction_bits : {kFractionBits, kSquareFractionBits}) {
    Digits expected{};
    std::uint64_t got[kDigits] = {};
    ASSERT_EQ(cuda::to_digits(value, fraction_bits, got), to_digits(value, fraction_bits, expected)) << value;
    if (!to_digits(value, fraction_bits, expected)) continue;
    for (std::size_t i = 0; i < kDigits; ++i) {
      ASSERT_EQ(got[i], static_cast<std::uint64_t>(expected[i])) << value << ", digit " << i;
    }
  }
}

TEST(FixedDigits, EqualThoseOfTheCpuAtEveryExponent) {
  std::mt19937_64 random(1);
  for (std::uint64_t exponent = 0; exponent <= 0x7ff; ++exponent) {
    for (int i = 0; i < 200; ++i) {
      // Few or many bits, so that halves and all-ones come up.
      std::uint64_t fraction = random() >> 12;
      if (i % 4 == 1) fraction &= ~std::uint64_t{0} << (random() % 52);
      if (i % 4 == 2) fraction |= (std::uint64_t{1} << (random() % 52)) - 1;
      if (i % 4 == 3) fraction = std::uint64_t{1} << (random() % 52);
      expect_equal_digits(std::bit_cast<double>(exponent << 52 | (fraction & 0xfffffffffffffULL)));
    }
    expect_equal_digits(std::bit_cast<double>(exponent << 52));
  }
}

TEST(FixedDigits, RefuseWhatTheCpuRefuses) {
  using Limits = std::numeric_limits<double>;
  for (const double value : {-1.0, -0.0, 0.0, -Limits::denorm_min(), Limits::denorm_min(), Limits::infinity(),
                             -Limits::infinity(), Limits::quiet_NaN(), 0x1p63, 0x1.fffffffffffffp62, 0x1p95}) {
    expect_equal_digits(value);
  }
}

}  // namespace
}  // namespace reap
