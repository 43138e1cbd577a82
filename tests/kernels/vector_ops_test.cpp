#include "kernels/cpu/vector_ops.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/isa.hpp"
#include "values.hpp"

namespace reap {
namespace {

// What is particular to the vector loops: their builds, lengths that are no multiple of a vector, and alignment. The
// operations made of them are tested through Backend.

std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> all{CpuIsa::avx2};
  if (settle_isa(CpuIsa::automatic) >= CpuIsa::avx512) all.push_back(CpuIsa::avx512);
  return all;
}

class Vectors : public testing::TestWithParam<CpuIsa> {
 protected:
  const VectorOps& vector = vector_ops(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Isas, Vectors, testing::ValuesIn(isas()),
                         [](const auto& isa) { return std::string(name_of(isa.param)); });

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

std::vector<std::uint16_t> all_codes() {
  std::vector<std::uint16_t> codes(0x10000);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
  return codes;
}

TEST_P(Vectors, WidenF16AsOneByOne) {
  const std::vector<std::uint16_t> codes = all_codes();
  std::vector<float> wide(codes.size());
  vector.f16_to_f32(codes.data(), static_cast<std::int64_t>(codes.size()), wide.data());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float expected = f16_to_float(codes[i]);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(wide[i])) << i;
    } else {
      ASSERT_EQ(bits_of(wide[i]), bits_of(expected)) << i;
    }
  }
}

TEST_P(Vectors, WidenBf16AsOneByOne) {
  std::vector<bf16> values;
  for (const std::uint16_t code : all_codes()) values.push_back({code});
  std::vector<float> wide(values.size());
  vector.bf16_to_f32(values.data(), static_cast<std::int64_t>(values.size()), wide.data());
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(bits_of(wide[i]), bits_of(to_float(values[i])));
}

TEST_P(Vectors, RoundToBf16AsOneByOne) {
  std::vector<float> values;
  for (std::uint32_t upper = 0; upper <= 0xffff; ++upper) {
    for (const std::uint32_t lower : {0U, 1U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      values.push_back(std::bit_cast<float>((upper << 16) | lower));
    }
  }
  std::vector<bf16> rounded(values.size());
  vector.f32_to_bf16(values.data(), static_cast<std::int64_t>(values.size()), rounded.data());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(rounded[i].bits, to_bf16(values[i]).bits) << bits_of(values[i]);
}

TEST_P(Vectors, SigmoidIsAccurateOverItsRange) {
  constexpr double kFewUnits = 4 * 0x1p-24;
  std::vector<float> x;
  for (int i = -87000; i <= 87000; ++i) x.push_back(static_cast<float>(i) * 1.003e-3f);
  std::vector<float> s(x.size());
  vector.sigmoid(x.data(), static_cast<std::int64_t>(x.size()), s.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = 1.0 / (1.0 + std::exp(-static_cast<double>(x[i])));
    ASSERT_NEAR(s[i], expected, expected * kFewUnits) << x[i];
  }
}

TEST_P(Vectors, SigmoidOfExtremes) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x{kInfinity, -kInfinity, 1e30f, -1e30f, -88.0f, 0.0f, -0.0f, std::nanf("")};
  std::vector<float> s(x.size());
  vector.sigmoid(x.data(), static_cast<std::int64_t>(x.size()), s.data());
  EXPECT_EQ((std::vector<float>(s.begin(), s.end() - 1)), (std::vector<float>{1, 0, 1, 0, 0, 0.5f, 0.5f}));
  EXPECT_TRUE(std::isnan(s.back()));
}

TEST_P(Vectors, AnyLengthTouchesNoMoreThanItself) {
  constexpr float kGuard = 12345.0f;
  const std::vector<float> x = test::random_values(80, 1);
  const std::vector<float> ones(80, 1.0f);
  for (std::int64_t count = 0; count <= 70; ++count) {
    std::vector<float> y(80, kGuard);
    const auto intact = [&] { return std::all_of(y.begin() + count, y.end(), [](float g) { return g == kGuard; }); };
    vector.sigmoid(x.data(), count, y.data());
    EXPECT_TRUE(intact()) << count;
    EXPECT_EQ(std::count(y.begin(), y.begin() + count, kGuard), 0);
    if (count == 0) continue;
    vector.rms_norm(x.data(), ones.data(), 1e-6f, count, y.data());
    EXPECT_TRUE(intact()) << count;
    const std::int32_t position = 0;
    std::fill(y.begin(), y.begin() + count, 0.0f);
    vector.combine(x.data(), false, &position, ones.data(), 1, count, y.data());
    EXPECT_TRUE(intact()) << count;
    EXPECT_EQ(std::memcmp(y.data(), x.data(), static_cast<std::size_t>(count) * sizeof(float)), 0);
  }
}

TEST_P(Vectors, ResultsDoNotDependOnAlignment) {
  constexpr std::int64_t kWidth = 203;
  const std::vector<float> x = test::random_values(kWidth, 2);
  const std::vector<float> weight = test::random_values(kWidth, 3);
  std::vector<float> first(kWidth);
  vector.rms_norm(x.data(), weight.data(), 1e-6f, kWidth, first.data());
  for (std::ptrdiff_t offset = 1; offset < 16; ++offset) {
    std::vector<float> shifted(kWidth + 16);
    std::copy(x.begin(), x.end(), shifted.begin() + offset);
    std::vector<float> y(kWidth + 16);
    vector.rms_norm(shifted.data() + offset, weight.data(), 1e-6f, kWidth, y.data() + 16 - offset);
    EXPECT_EQ(std::memcmp(y.data() + 16 - offset, first.data(), kWidth * sizeof(float)), 0) << offset;
  }
}

}  // namespace
}  // namespace reap
