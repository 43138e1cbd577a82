#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/vector_ops.hpp"
#include "kernels/weights.hpp"

namespace reap::test {
namespace {

// silu_mul: e^x within 1.5 units in the last place, then a division and two products.
constexpr double kSiluMul = 6 * 0x1p-24;

std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> all{CpuIsa::avx2};
  if (settle_isa(CpuIsa::automatic) >= CpuIsa::avx512) all.push_back(CpuIsa::avx512);
  return all;
}

class VectorExperts : public testing::TestWithParam<CpuIsa> {
 protected:
  const VectorOps& vector = vector_ops(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Isas, VectorExperts, testing::ValuesIn(isas()),
                         [](const auto& isa) { return std::string(name_of(isa.param)); });

TEST_P(VectorExperts, DequantiseFp8AsOneByOne) {
  std::vector<std::uint8_t> codes(256 + 37);  // no multiple of a vector
  std::iota(codes.begin(), codes.end(), std::uint8_t{0});
  const auto count = static_cast<std::int64_t>(codes.size());
  std::vector<float> wide(codes.size());
  std::vector<bf16> narrow(codes.size());
  for (const float scale : {1.0f, 0.0123f, -3e30f, 0x1p-120f}) {
    vector.f8_to_f32(codes.data(), count, scale, wide.data());
    vector.f8_to_bf16(codes.data(), count, scale, narrow.data());
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const float expected = f8_e4m3_to_float(codes[i]) * scale;
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(wide[i]) && std::isnan(to_float(narrow[i]))) << i;
      } else {
        EXPECT_EQ(wide[i], expected) << i;
        EXPECT_EQ(narrow[i].bits, to_bf16(expected).bits) << i;
      }
    }
  }
}

TEST_P(VectorExperts, ShowAScaleThatIsNotFinite) {
  const std::vector<std::uint8_t> codes(40, 0x38);
  std::vector<bf16> narrow(codes.size());
  vector.f8_to_bf16(codes.data(), 40, std::bit_cast<float>(0xffffffffU), narrow.data());
  for (const bf16 value : narrow) EXPECT_TRUE(std::isnan(to_float(value)));
}

TEST_P(VectorExperts, RoundToBf16AsOneByOne) {
  std::vector<float> values = random_values(100, 1);
  for (const std::uint32_t bits : {0x3f808000U, 0x3f818000U, 0x7f7fffffU, 0x7f800000U, 0xffffffffU, 0x80000001U}) {
    values.push_back(std::bit_cast<float>(bits));
  }
  std::vector<float> rounded(values.size());
  vector.round_to_bf16(values.data(), static_cast<std::int64_t>(values.size()), rounded.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float expected = to_float(to_bf16(values[i]));
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(rounded[i])) << i;
    else
      EXPECT_EQ(std::bit_cast<std::uint32_t>(rounded[i]), std::bit_cast<std::uint32_t>(expected)) << i;
  }
}

TEST_P(VectorExperts, MultiplyBySilu) {
  std::vector<float> gate = random_values(201, 1), up = random_values(201, 2);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= 30;
  std::vector<float> got(gate.size());
  vector.silu_mul(gate.data(), up.data(), 201, got.data());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i], expected = g / (1 + std::exp(-g)) * static_cast<double>(up[i]);
    EXPECT_NEAR(got[i], expected, kSiluMul * std::abs(expected) + std::numeric_limits<float>::min()) << gate[i];
  }
}

TEST_P(VectorExperts, SumSquaresWithTheSameBitsInEveryBuild) {
  const std::vector<float> x = random_values(1000, 1);
  for (const std::int64_t count : {0, 1, 31, 32, 33, 1000}) {
    double exact = 0;
    float largest = 0, max = -1, max_avx2 = -1;
    for (std::int64_t i = 0; i < count; ++i) {
      exact +=
          static_cast<double>(x[static_cast<std::size_t>(i)]) * static_cast<double>(x[static_cast<std::size_t>(i)]);
      largest = std::max(largest, std::abs(x[static_cast<std::size_t>(i)]));
    }
    const double sum = vector.square_sum_and_max(x.data(), count, &max);
    EXPECT_NEAR(sum, exact, 1000 * 0x1p-53 * exact);
    EXPECT_EQ(max, largest);
    EXPECT_EQ(sum, vector_ops(CpuIsa::avx2).square_sum_and_max(x.data(), count, &max_avx2));
  }
}

TEST_P(VectorExperts, PutNanAboveAllMagnitudes) {
  for (const std::size_t place : {0UL, 40UL, 69UL}) {
    std::vector<float> x(70, std::numeric_limits<float>::infinity());
    x[place] = -std::numeric_limits<float>::quiet_NaN();
    float max = 0;
    EXPECT_TRUE(std::isnan(vector.square_sum_and_max(x.data(), 70, &max)));
    EXPECT_TRUE(std::isnan(max));
  }
}

}  // namespace
}  // namespace reap::test
