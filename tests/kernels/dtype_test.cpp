#include "kernels/dtype.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace reap {
namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

TEST(DType, NamesAreThoseOfSafetensors) {
  EXPECT_EQ(name_of(DType::bf16), "BF16");
  EXPECT_EQ(name_of(DType::f8_e4m3), "F8_E4M3");
  EXPECT_EQ(dtype_named("F32"), DType::f32);
  EXPECT_EQ(dtype_named("BOOL"), DType::boolean);
  EXPECT_EQ(dtype_named("bf16"), std::nullopt);
  EXPECT_EQ(dtype_named(""), std::nullopt);
  for (int i = 0; i <= static_cast<int>(DType::f64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_named(name_of(dtype)), dtype) << name_of(dtype);
  }
}

TEST(DType, SizesAreInBytes) {
  EXPECT_EQ(size_of(DType::boolean), 1U);
  EXPECT_EQ(size_of(DType::f8_e5m2), 1U);
  EXPECT_EQ(size_of(DType::f16), 2U);
  EXPECT_EQ(size_of(DType::i32), 4U);
  EXPECT_EQ(size_of(DType::f64), 8U);
}

TEST(Bf16, EveryValueComesBackUnchanged) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const bf16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    EXPECT_EQ(bits_of(wide), bits << 16);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(to_float(to_bf16(wide)))) << bits;
    } else {
      EXPECT_EQ(to_bf16(wide).bits, bits);
    }
  }
}

TEST(Bf16, RoundsToNearestEven) {
  for (std::uint32_t upper = 0; upper < 0x7f80; ++upper) {  // every finite interval between neighbours
    const std::uint32_t even = upper + (upper & 1);
    EXPECT_EQ(to_bf16(from_bits((upper << 16) | 0x7fff)).bits, upper);
    EXPECT_EQ(to_bf16(from_bits((upper << 16) | 0x8000)).bits, even);
    EXPECT_EQ(to_bf16(from_bits((upper << 16) | 0x8001)).bits, upper + 1);
    EXPECT_EQ(to_bf16(from_bits((upper << 16) | 0x80008000)).bits, even | 0x8000);
  }
}

TEST(Bf16, OverflowsToInfinityAndKeepsNan) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_float(to_bf16(std::numeric_limits<float>::max())), kInfinity);
  EXPECT_EQ(to_float(to_bf16(-kInfinity)), -kInfinity);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(0x7f800001)))));  // truncated, it would be infinity
  EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(0x7fffffff)))));  // rounded up, it would be -0
  EXPECT_TRUE(std::isnan(to_float(to_bf16(from_bits(0xffffffff)))));
}

TEST(F16, EveryCode) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    const int exponent = static_cast<int>((bits >> 10) & 31);
    const double fraction = (bits & 0x3ff) / 1024.0;
    const float value = f16_to_float(static_cast<std::uint16_t>(bits));
    EXPECT_EQ(std::signbit(value), sign < 0) << bits;
    if (exponent == 31 && fraction != 0) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else if (exponent == 31) {
      EXPECT_EQ(value, sign * std::numeric_limits<double>::infinity());
    } else if (exponent == 0) {
      EXPECT_EQ(value, sign * fraction / 16384) << bits;
    } else {
      EXPECT_EQ(value, sign * (1 + fraction) * std::exp2(exponent - 15)) << bits;
    }
  }
}

TEST(F8E4m3, EveryCode) {
  for (std::uint32_t bits = 0; bits <= 0xff; ++bits) {
    const double sign = (bits & 0x80) != 0 ? -1 : 1;
    const int exponent = static_cast<int>((bits >> 3) & 15);
    const double fraction = (bits & 7) / 8.0;
    const float value = f8_e4m3_to_float(static_cast<std::uint8_t>(bits));
    EXPECT_EQ(std::signbit(value), sign < 0) << bits;
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value)) << bits;
    } else if (exponent == 0) {
      EXPECT_EQ(value, sign * fraction / 64) << bits;
    } else {
      EXPECT_EQ(value, sign * (1 + fraction) * std::exp2(exponent - 7)) << bits;
    }
  }
  EXPECT_EQ(f8_e4m3_to_float(0x7e), 448.0f);  // the largest: there are no infinities
  EXPECT_EQ(f8_e4m3_to_float(0x01), 0x1p-9f);
}

}  // namespace
}  // namespace reap
