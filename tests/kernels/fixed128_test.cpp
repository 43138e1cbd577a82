#include "kernels/fixed128.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "kernels/error.hpp"
#include "kernels/fields.hpp"

namespace reap {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::int64_t kFull = 0xffffffff;

Wide value_of(const Digits& digits) {
  Wide sum = 0;
  for (std::size_t i = kDigits; i-- > 0;) sum = (sum << 32) + static_cast<Wide>(digits[i]);
  return sum;
}

/// Digits by floating-point steps that are all exact: scaling by powers of two, rounding to an integer, remainders.
Digits digits_by_doubles(double value, int fraction_bits) {
  const double units = std::nearbyint(std::ldexp(value, fraction_bits));
  Digits digits{};
  for (int i = 0; i < kDigits; ++i) {
    const double above = std::floor(std::ldexp(units, -32 * (i + 1)));
    const double here = std::floor(std::ldexp(units, -32 * i));
    digits[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(here - std::ldexp(above, 32));
  }
  return digits;
}

Digits split(double value, int fraction_bits) {
  Digits digits{-1, -1, -1, -1};
  EXPECT_TRUE(to_digits(value, fraction_bits, digits)) << value;
  return digits;
}

TEST(ToDigits, ByHand) {
  EXPECT_EQ(split(0.0, 64), (Digits{0, 0, 0, 0}));
  EXPECT_EQ(split(-0.0, 64), (Digits{0, 0, 0, 0}));
  EXPECT_EQ(split(1.0, 64), (Digits{0, 0, 1, 0}));
  EXPECT_EQ(split(1.5, 64), (Digits{0, 0x80000000, 1, 0}));
  EXPECT_EQ(split(5.25, 32), (Digits{0x40000000, 5, 0, 0}));
  EXPECT_EQ(split(0x1p-64, 64), (Digits{1, 0, 0, 0}));
}

TEST(ToDigits, RoundsOnceToNearestEven) {
  EXPECT_EQ(split(0.5, 0)[0], 0);
  EXPECT_EQ(split(1.5, 0)[0], 2);
  EXPECT_EQ(split(2.5, 0)[0], 2);
  EXPECT_EQ(split(std::nextafter(0.5, 0.0), 0)[0], 0);
  EXPECT_EQ(split(std::nextafter(0.5, 1.0), 0)[0], 1);
  EXPECT_EQ(split(std::nextafter(2.5, 3.0), 0)[0], 3);
  EXPECT_EQ(split(std::numeric_limits<double>::denorm_min(), 64), (Digits{}));
  EXPECT_EQ(split(std::numeric_limits<double>::min(), 64), (Digits{}));
  EXPECT_EQ(split(0x1p-65, 64)[0], 0);
  EXPECT_EQ(split(std::nextafter(0x1p-65, 1.0), 64)[0], 1);
}

TEST(ToDigits, HoldsUpTo127Bits) {
  for (const int fraction_bits : {kFractionBits, kSquareFractionBits, 0}) {
    const double limit = std::ldexp(1.0, 127 - fraction_bits);
    const Digits highest = split(std::nextafter(limit, 0.0), fraction_bits);
    EXPECT_EQ(highest, (Digits{0, 0, 0xfffffc00, 0x7fffffff}));
    Digits untouched{1, 2, 3, 4};
    EXPECT_FALSE(to_digits(limit, fraction_bits, untouched));
    EXPECT_FALSE(to_digits(std::numeric_limits<double>::max(), fraction_bits, untouched));
    EXPECT_EQ(untouched, (Digits{1, 2, 3, 4}));
  }
}

TEST(ToDigits, RefusesWhatIsNoMagnitude) {
  Digits untouched{1, 2, 3, 4};
  EXPECT_FALSE(to_digits(-1.0, 64, untouched));
  EXPECT_FALSE(to_digits(-std::numeric_limits<double>::denorm_min(), 64, untouched));
  EXPECT_FALSE(to_digits(std::numeric_limits<double>::infinity(), 64, untouched));
  EXPECT_FALSE(to_digits(-std::numeric_limits<double>::infinity(), 64, untouched));
  EXPECT_FALSE(to_digits(std::numeric_limits<double>::quiet_NaN(), 64, untouched));
  EXPECT_EQ(untouched, (Digits{1, 2, 3, 4}));
}

TEST(ToDigits, EqualsExactFloatingPointSteps) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    const double mantissa = 1.0 + static_cast<double>(random() >> 12) * 0x1p-52;
    const int fraction_bits = i % 2 == 0 ? kFractionBits : kSquareFractionBits;
    const double value = std::ldexp(mantissa, static_cast<int>(random() % 200) - 72 - fraction_bits);
    if (value >= std::ldexp(1.0, 127 - fraction_bits)) continue;
    ASSERT_EQ(split(value, fraction_bits), digits_by_doubles(value, fraction_bits)) << value;
  }
}

TEST(Normalise, Carries) {
  Digits digits{kFull + 1, kFull, kFull, 0};
  EXPECT_TRUE(normalise(digits));
  EXPECT_EQ(digits, (Digits{0, 0, 0, 1}));
  EXPECT_TRUE(normalise(digits));  // the canonical form stays
  EXPECT_EQ(digits, (Digits{0, 0, 0, 1}));
}

TEST(Normalise, TakesTwoToThe31Additions) {
  const std::int64_t additions = std::int64_t{1} << 31;
  Digits digits{kFull * additions, kFull * additions, 0, 0};
  const Wide expected = (Wide{1} << 31) * 0xffffffffffffffffU;
  EXPECT_TRUE(normalise(digits));
  EXPECT_TRUE(value_of(digits) == expected);
}

TEST(Normalise, KeepsTheSum) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 100000; ++i) {
    Digits digits{};
    for (std::int64_t& digit : digits) digit = static_cast<std::int64_t>(random() >> (3 + random() % 60));
    digits[3] >>= 34;  // room for the carries
    const Wide expected = value_of(digits);
    ASSERT_TRUE(normalise(digits));
    ASSERT_TRUE(value_of(digits) == expected);
    for (const std::int64_t digit : digits) ASSERT_TRUE(digit >= 0 && digit <= kFull);
  }
}

TEST(Normalise, RefusesWhatDoesNotFit) {
  Digits too_high{0, 0, 0, std::int64_t{1} << 31};
  EXPECT_FALSE(normalise(too_high));
  Digits by_carry{kFull + 1, kFull, kFull, 0x7fffffff};
  EXPECT_FALSE(normalise(by_carry));
  EXPECT_EQ(by_carry, (Digits{kFull + 1, kFull, kFull, 0x7fffffff}));
  Digits negative{0, -1, 0, 0};
  EXPECT_FALSE(normalise(negative));
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  Digits most{kMost, kMost, kMost, kMost};
  EXPECT_FALSE(normalise(most));
}

TEST(ToDouble, ByHand) {
  EXPECT_EQ(to_double(Digits{0, 0, 0, 0}, 64), 0.0);
  EXPECT_EQ(to_double(Digits{1, 0, 0, 0}, 64), 0x1p-64);
  EXPECT_EQ(to_double(Digits{0, 0x80000000, 1, 0}, 64), 1.5);
  EXPECT_EQ(to_double(Digits{0, 0, 0, 0x7fffffff}, 64), 0x7fffffffp32);
  EXPECT_EQ(to_double(Digits{0, 2 * (kFull + 1), 0, 0}, 64), 2.0);  // not normalised
}

TEST(ToDouble, RoundsOnceToNearestEven) {
  const std::int64_t tie = (std::int64_t{1} << 53) + 1;  // between two doubles; the lower one is even
  EXPECT_EQ(to_double(Digits{0, 0, 0, tie}, 96), 0x1p53);
  EXPECT_EQ(to_double(Digits{1, 0, 0, tie}, 96), 0x1p53 + 2);
  EXPECT_EQ(to_double(Digits{0, 0, 0, tie + 2}, 96), 0x1p53 + 4);
  // 2^118 + 2^65, a tie, and one unit more: rounded to 64 bits first, that unit would be lost.
  EXPECT_EQ(to_double(Digits{0, 0, 2, 0x400000}, 96), 0x1p22);
  EXPECT_EQ(to_double(Digits{1, 0, 2, 0x400000}, 96), std::nextafter(0x1p22, 0x1p23));
}

TEST(ToDouble, EqualsTheConversionOf128Bits) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200000; ++i) {
    Digits digits{};
    for (std::int64_t& digit : digits) digit = static_cast<std::int64_t>(random() >> (1 + random() % 63));
    digits[3] >>= 33;
    if (i % 3 == 0) digits[3] = 0;
    if (i % 5 == 0) digits[2] = 0;
    if (i % 7 == 0) digits[1] = std::int64_t{1} << (i % 62);  // sparse: more ties
    ASSERT_EQ(to_double(digits, 64), std::ldexp(static_cast<double>(value_of(digits)), -64));
  }
}

TEST(ToDouble, RefusesNegativeDigits) { EXPECT_THROW(to_double(Digits{-1, 0, 0, 0}, 64), Error); }

Digits split_signed(double value, int fraction_bits) {
  Digits digits{-1, -1, -1, -1};
  EXPECT_TRUE(to_signed_digits(value, fraction_bits, digits)) << value;
  return digits;
}

TEST(SignedDigits, AreThoseOfTheMagnitudeNegated) {
  EXPECT_EQ(split_signed(-1.5, 64), (Digits{0, -0x80000000LL, -1, 0}));
  EXPECT_EQ(split_signed(-0x1p-64, 64), (Digits{-1, 0, 0, 0}));
  EXPECT_EQ(split_signed(-0.0, 64), (Digits{}));
  EXPECT_EQ(split_signed(-2.5, 0)[0], -2);  // to nearest even, as its magnitude
  EXPECT_EQ(split_signed(-std::numeric_limits<double>::denorm_min(), 64), (Digits{}));
  EXPECT_EQ(split_signed(1.5, 64), split(1.5, 64));
}

TEST(SignedDigits, RefuseWhatDoesNotFit) {
  Digits untouched{1, 2, 3, 4};
  for (const double value :
       {0x1p63, -0x1p63, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_FALSE(to_signed_digits(value, 64, untouched)) << value;
  }
  EXPECT_EQ(untouched, (Digits{1, 2, 3, 4}));
  EXPECT_EQ(split_signed(-std::nextafter(0x1p63, 0.0), 64), (Digits{0, 0, -0xfffffc00LL, -0x7fffffff}));
}

TEST(NormaliseSigned, CarriesDownwards) {
  Digits digits{-1, 0, 0, 0};
  EXPECT_TRUE(normalise_signed(digits));
  EXPECT_EQ(digits, (Digits{kFull, kFull, kFull, -1}));
  EXPECT_TRUE(normalise_signed(digits));  // the canonical form stays
  EXPECT_EQ(digits, (Digits{kFull, kFull, kFull, -1}));
  Digits mixed{1, -1, 2, 0};
  EXPECT_TRUE(normalise_signed(mixed));
  EXPECT_EQ(mixed, (Digits{1, kFull, 1, 0}));
}

TEST(NormaliseSigned, LeavesSumsOfMagnitudesAsNormaliseDoes) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 20000; ++i) {
    Digits digits{};
    for (std::int64_t& digit : digits) digit = static_cast<std::int64_t>(random() >> (3 + random() % 60));
    digits[3] >>= 34;
    Digits expected = digits;
    ASSERT_TRUE(normalise(expected));
    ASSERT_TRUE(normalise_signed(digits));
    ASSERT_EQ(digits, expected);
  }
}

TEST(NormaliseSigned, RefusesWhatDoesNotFit) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  for (const Digits& wrong : {Digits{0, 0, 0, std::int64_t{1} << 31}, Digits{kFull + 1, kFull, kFull, 0x7fffffff},
                              Digits{0, 0, 0, -(std::int64_t{1} << 31) - 1}, Digits{-1, 0, 0, -(std::int64_t{1} << 31)},
                              Digits{kMost, kMost, kMost, kMost}, Digits{kLeast, kLeast, kLeast, kLeast}}) {
    Digits digits = wrong;
    EXPECT_FALSE(normalise_signed(digits));
    EXPECT_EQ(digits, wrong);
  }
  Digits lowest{0, 0, 0, -(std::int64_t{1} << 31)};
  EXPECT_TRUE(normalise_signed(lowest));
  EXPECT_EQ(signed_to_double(lowest, 64), -0x1p63);
}

TEST(SignedToDouble, IsTheNegativeOfTheMagnitude) {
  EXPECT_EQ(signed_to_double(Digits{0, 0, 0, -1}, 96), -1.0);
  EXPECT_EQ(signed_to_double(Digits{kFull, kFull, kFull, -1}, 64), -0x1p-64);
  std::mt19937_64 random(6);
  for (int i = 0; i < 100000; ++i) {
    Digits digits{};
    for (std::int64_t& digit : digits) digit = static_cast<std::int64_t>(random() >> (3 + random() % 60));
    digits[3] >>= 34;
    Digits negative{};
    for (std::size_t d = 0; d < kDigits; ++d) negative[d] = -digits[d];
    ASSERT_TRUE(normalise_signed(negative));
    ASSERT_EQ(signed_to_double(negative, 64), -to_double(digits, 64));
  }
}

TEST(Fixed128, ASumOfSignedDigitsIsTheSumOfValues) {
  std::mt19937_64 random(7);
  Digits sum{};
  std::int64_t expected = 0;
  for (int i = 0; i < 10000; ++i) {
    const std::int64_t units = static_cast<std::int64_t>(random() >> 15) - (std::int64_t{1} << 48);
    const Digits digits = split_signed(static_cast<double>(units) * 0x1p-48, 48);
    for (std::size_t d = 0; d < kDigits; ++d) sum[d] += digits[d];
    expected += units;
  }
  ASSERT_TRUE(normalise_signed(sum));
  EXPECT_EQ(signed_to_double(sum, 0), static_cast<double>(expected));
}

TEST(Fixed128, ASumOfDigitsIsTheSumOfValues) {
  std::mt19937_64 random(4);
  Digits sum{};
  Wide expected = 0;
  for (int i = 0; i < 10000; ++i) {
    const double value = static_cast<double>(random() >> 11) * 0x1p-40;
    const Digits digits = split(value, kFractionBits);
    for (std::size_t d = 0; d < kDigits; ++d) sum[d] += digits[d];
    expected += static_cast<Wide>(random.max() & static_cast<std::uint64_t>(value * 0x1p40)) << 24;
  }
  ASSERT_TRUE(normalise(sum));
  EXPECT_TRUE(value_of(sum) == expected);
}

}  // namespace
}  // namespace reap
