// What the bits do not depend on, and what is refused; the bits themselves: shard/quantize_golden_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/backends.hpp"
#include "kernels/check.hpp"
#include "kernels/weights.hpp"

namespace reap {
namespace {

using test::StoredWeight;

class Quantize : public test::BackendTest {
 protected:
  struct Result {
    std::vector<std::uint32_t> words;
    std::vector<std::uint16_t> scales;
    bool operator==(const Result&) const = default;
  };

  Result run(const StoredWeight& weight, const QuantizeSpec& spec, const Importance* importance = nullptr) {
    Result result{std::vector<std::uint32_t>(static_cast<std::size_t>(weight.rows() * weight.cols() / kNibbles)),
                  std::vector<std::uint16_t>(static_cast<std::size_t>(weight.rows() * weight.cols() / spec.group))};
    backend->quantize(weight.source(), spec, importance, result.words.data(), result.scales.data());
    return result;
  }

  /// What a 4-bit weight stands for.
  static double value(const Result& result, const StoredWeight& weight, std::int64_t group, std::int64_t row,
                      std::int64_t col) {
    const auto at = static_cast<std::size_t>(row * weight.cols() + col);
    const auto code = static_cast<int>(result.words[at / 8] >> (at % 8 * 4) & 15U);
    return static_cast<double>(code - 8) * f16_to_float(result.scales[at / static_cast<std::size_t>(group)]);
  }

  static double squared_error(const Result& result, const StoredWeight& weight, std::int64_t group,
                              const std::vector<float>& importance) {
    double sum = 0;
    for (std::int64_t i = 0; i < weight.rows() * weight.cols(); ++i) {
      const std::int64_t row = i / weight.cols(), col = i % weight.cols();
      const double error = value(result, weight, group, row, col) - weight.value(row, col, Compute::fp32);
      sum += error * error * importance[static_cast<std::size_t>(col)];
    }
    return sum;
  }
};

REAP_TEST_ON_BACKENDS(Quantize);

constexpr std::array<Rounding, 2> kRoundings{Rounding::rtn, Rounding::opt_rtn};

TEST_P(Quantize, StaysWithinHalfAStep) {
  constexpr double kStep = 0.51;     // and a little: scales are rounded to f16
  constexpr double kTopStep = 1.02;  // the value opposite to the extreme one may lie beyond 7
  for (const DType dtype : test::kWeightDTypes) {
    const StoredWeight weight = StoredWeight::random(dtype, 7, 384, 1);
    for (const std::int64_t group : {32, 64, 128}) {
      const Result result = run(weight, {Rounding::rtn, group});
      for (std::int64_t i = 0; i < 7 * 384; ++i) {
        const double scale = std::abs(f16_to_float(result.scales[static_cast<std::size_t>(i / group)]));
        const double got = value(result, weight, group, i / 384, i % 384);
        const double limit = std::abs(got) > 6.5 * scale ? kTopStep : kStep;
        ASSERT_LE(std::abs(got - weight.value(i / 384, i % 384, Compute::fp32)), limit * scale)
            << name_of(dtype) << " group " << group << " element " << i;
      }
    }
  }
}

TEST_P(Quantize, SearchesForLessError) {
  const StoredWeight weight = StoredWeight::random(DType::bf16, 16, 256, 2);
  std::vector<float> sums(256, 1.0f);
  const Result plain = run(weight, {Rounding::rtn, 128});
  const Result best = run(weight, {Rounding::opt_rtn, 128});
  EXPECT_LT(squared_error(best, weight, 128, sums), 0.95 * squared_error(plain, weight, 128, sums));
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = i % 9 == 0 ? 40.0f : 0.1f;
  const Importance importance = effective_importance(sums.data(), 256, 128);
  const Result weighted = run(weight, {Rounding::opt_rtn, 128}, &importance);
  EXPECT_LT(squared_error(weighted, weight, 128, sums), 0.95 * squared_error(best, weight, 128, sums));
}

TEST_P(Quantize, Fp8IsWhatItsBf16WouldBe) {
  const StoredWeight f8 = StoredWeight::random(DType::f8_e4m3, 130, 192, 3);  // squares that are not whole
  StoredWeight wide(DType::bf16, 130, 192);
  for (std::int64_t i = 0; i < 130 * 192; ++i) {
    wide.set_bits(i / 192, i % 192, to_bf16(f8.value(i / 192, i % 192, Compute::bf16)).bits);
  }
  for (const Rounding rounding : kRoundings) EXPECT_EQ(run(f8, {rounding, 64}), run(wide, {rounding, 64}));
}

TEST_P(Quantize, ARowDoesNotDependOnTheOthers) {
  const StoredWeight all = StoredWeight::random(DType::bf16, 5, 128, 4);
  for (const Rounding rounding : kRoundings) {
    const Result whole = run(all, {rounding, 32});
    for (std::int64_t row = 0; row < 5; ++row) {
      StoredWeight one(DType::bf16, 1, 128);
      for (std::int64_t col = 0; col < 128; ++col)
        one.set_bits(0, col, to_bf16(all.value(row, col, Compute::fp32)).bits);
      const Result alone = run(one, {rounding, 32});
      EXPECT_TRUE(std::equal(alone.words.begin(), alone.words.end(), whole.words.begin() + row * 16)) << row;
      EXPECT_TRUE(std::equal(alone.scales.begin(), alone.scales.end(), whole.scales.begin() + row * 4)) << row;
    }
  }
}

TEST_P(Quantize, RefusesWhatIsNotFiniteAndNamesTheRow) {
  for (const std::uint32_t bits : {0x7f80U, 0xff80U, 0x7fc0U, 0xffc1U}) {
    StoredWeight weight = StoredWeight::random(DType::bf16, 9, 64, 5);
    weight.set_bits(4, 40, bits);
    weight.set_bits(8, 0, bits);
    for (const Rounding rounding : kRoundings) {
      try {
        run(weight, {rounding, 32});
        ADD_FAILURE() << "took " << bits;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::numerics);
        EXPECT_NE(std::string(error.what()).find("row 4 "), std::string::npos) << error.what();
      }
    }
  }
}

TEST_P(Quantize, RefusesScalesBeyondFp16) {
  StoredWeight weight = StoredWeight::random(DType::f32, 2, 32, 6);
  const float large = 8 * 70000.0f;
  std::uint32_t bits = 0;
  std::memcpy(&bits, &large, sizeof bits);
  weight.set_bits(1, 3, bits);
  for (const Rounding rounding : kRoundings) EXPECT_THROW(run(weight, {rounding, 32}), Error);
}

TEST(EffectiveImportance, TakesTheMeanForAFewUnknownInputsAndTheWeightsForMany) {
  std::vector<float> sums(96, 2.0f);
  sums[0] = 0;
  for (std::size_t i = 32; i < 49; ++i) sums[i] = 0;
  const Importance importance = effective_importance(sums.data(), 96, 32);
  EXPECT_EQ(importance.factor[0], 2.0f);
  EXPECT_EQ(importance.from_weights, (std::vector<std::uint8_t>{0, 1, 0}));
}

}  // namespace
}  // namespace reap
