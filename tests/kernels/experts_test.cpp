#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/backends.hpp"
#include "kernels/weights.hpp"

namespace reap::test {
namespace {

// Products with fp32 accumulators, and silu: relative to the magnitudes that were added up on the way.
constexpr double kFp32Accumulation = 2e-6;
// Between the products bf16 may round either way (2^-9 of each term), and f itself is rounded to bf16 (2^-9).
constexpr double kBf16Rounding = 1.0 / 256;

struct Shape {
  std::int64_t hidden;
  std::int64_t inner;
};
constexpr Shape kShapes[] = {{160, 136}, {211, 144}, {128, 64}, {16, 1}, {320, 300}};

struct StoredExpert {
  StoredWeight w1, w3, w2;
  StoredExpert(DType dtype, Shape shape, unsigned seed)
      : w1{StoredWeight::random(dtype, shape.inner, shape.hidden, seed)},
        w3{StoredWeight::random(dtype, shape.inner, shape.hidden, seed + 1)},
        w2{StoredWeight::random(dtype, shape.hidden, shape.inner, seed + 2)} {}
};

std::vector<StoredExpert> random_experts(DType dtype, Shape shape, unsigned count) {
  std::vector<StoredExpert> experts;
  for (unsigned e = 0; e < count; ++e) experts.emplace_back(dtype, shape, 10 * e + 1);
  return experts;
}

struct Result {
  std::vector<float> f, norm, max_abs;
  bool operator==(const Result&) const = default;
};

Result run_experts(Backend& on, const std::vector<StoredExpert>& stored, const std::vector<float>& x,
                   const std::vector<std::int32_t>& row, const std::vector<std::int64_t>& start,
                   std::vector<std::int64_t>* squares = nullptr) {
  std::vector<std::unique_ptr<Weight>> packed;
  std::vector<ExpertWeights> weights;
  for (const StoredExpert& expert : stored) {
    for (const StoredWeight* w : {&expert.w1, &expert.w3, &expert.w2})
      packed.push_back(on.pack(w->source(), on.compute()));
    weights.push_back({packed.end()[-3].get(), packed.end()[-2].get(), packed.end()[-1].get()});
  }
  const auto slots = static_cast<std::int64_t>(row.size());
  const auto x_act = upload_act(on, x);
  const auto rows = upload(on, row);
  const auto f = act_buffer(on, slots * stored[0].w2.rows());
  const Buffer<float> norm(on.memory(), slots), max_abs(on.memory(), slots);
  on.experts(x_act.data(), rows.data(), start, weights, f.data(), norm.data(), max_abs.data(), {});
  if (squares != nullptr) {
    const std::size_t size = stored.size() * kSquareDigits * static_cast<std::size_t>(stored[0].w1.rows());
    const auto sums = upload(on, std::vector<std::int64_t>(size));
    const auto bad = upload(on, std::vector<std::int64_t>{0});
    on.experts(x_act.data(), rows.data(), start, weights, f.data(), norm.data(), max_abs.data(),
               {sums.data(), bad.data()});
    *squares = download(on, sums);
    EXPECT_EQ(download(on, bad)[0], 0);
  }
  return {download_act(on, f), download(on, norm), download(on, max_abs)};
}

/// One slot by the formula, in double; rounded to the activation type where the model rounds.
struct Oracle {
  std::vector<double> f, tolerance;
};

class ExpertOracle {
 public:
  ExpertOracle(const Backend& backend, const StoredExpert& expert)
      : backend_{backend},
        w1_{expert.w1.values(backend.compute())},
        w3_{expert.w3.values(backend.compute())},
        w2_{expert.w2.values(backend.compute())},
        hidden_{static_cast<std::size_t>(expert.w2.rows())},
        inner_{static_cast<std::size_t>(expert.w1.rows())} {}

  Oracle operator()(const float* x) const {
    const double rounding = backend_.compute() == Compute::bf16 ? kBf16Rounding : 0;
    std::vector<double> act, act_magnitude;
    for (std::size_t i = 0; i < inner_; ++i) {
      double gate = 0, up = 0, gate_magnitude = 0, up_magnitude = 0;
      for (std::size_t k = 0; k < hidden_; ++k) {
        const double value = as_act(backend_, x[k]);
        gate += value * w1_[i * hidden_ + k];
        up += value * w3_[i * hidden_ + k];
        gate_magnitude += std::abs(value * w1_[i * hidden_ + k]);
        up_magnitude += std::abs(value * w3_[i * hidden_ + k]);
      }
      const double silu = gate / (1 + std::exp(-gate));
      act.push_back(as_act(backend_, static_cast<float>(silu * up)));
      act_magnitude.push_back(gate_magnitude * std::abs(up) + std::abs(silu) * up_magnitude);
    }
    Oracle result;
    for (std::size_t n = 0; n < hidden_; ++n) {
      double f = 0, tolerance = 0;
      for (std::size_t i = 0; i < inner_; ++i) {
        const double term = act[i] * w2_[n * inner_ + i];
        f += term;
        tolerance += (rounding + kFp32Accumulation) * std::abs(term) +
                     kFp32Accumulation * act_magnitude[i] * std::abs(w2_[n * inner_ + i]);
      }
      result.f.push_back(f);
      result.tolerance.push_back(tolerance);
    }
    return result;
  }

 private:
  const Backend& backend_;
  std::vector<double> w1_, w3_, w2_;
  std::size_t hidden_, inner_;
};

using ExpertsTest = BackendTest;

/// Every slot against the formula; slot i reads row (11 i) mod x_rows.
void expect_formula(Backend& backend, DType dtype, Shape shape, std::int64_t x_rows,
                    const std::vector<std::int64_t>& start) {
  std::vector<std::int32_t> row(static_cast<std::size_t>(start.back()));
  for (std::size_t i = 0; i < row.size(); ++i)
    row[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) * 11 % x_rows);
  const std::vector<StoredExpert> stored = random_experts(dtype, shape, static_cast<unsigned>(start.size() - 1));
  const std::vector<float> x = random_values(x_rows * shape.hidden, 7);
  const Result got = run_experts(backend, stored, x, row, start);
  for (std::size_t expert = 0; expert < stored.size(); ++expert) {
    const ExpertOracle oracle_of(backend, stored[expert]);
    for (auto slot = static_cast<std::size_t>(start[expert]); slot < static_cast<std::size_t>(start[expert + 1]);
         ++slot) {
      SCOPED_TRACE(testing::Message() << name_of(dtype) << " hidden " << shape.hidden << " slot " << slot);
      const Oracle oracle = oracle_of(x.data() + row[slot] * shape.hidden);
      double square_sum = 0, max = 0, slack = 0;
      for (std::size_t n = 0; n < oracle.f.size(); ++n) {
        ASSERT_NEAR(got.f[slot * oracle.f.size() + n], oracle.f[n], oracle.tolerance[n]) << "output " << n;
        square_sum += oracle.f[n] * oracle.f[n];
        max = std::max(max, std::abs(oracle.f[n]));
        slack = std::max(slack, oracle.tolerance[n]);
      }
      ASSERT_NEAR(got.norm[slot], std::sqrt(square_sum), slack * std::sqrt(static_cast<double>(shape.hidden)));
      ASSERT_NEAR(got.max_abs[slot], max, slack);
    }
  }
}

TEST_P(ExpertsTest, FollowTheFormulaForEveryStoredType) {
  for (const DType dtype : kWeightDTypes) {
    for (const Shape shape : kShapes) {
      expect_formula(*backend, dtype, shape, 20, {0, 3, 3, 40, 41});  // the second expert has no slot
    }
  }
}

TEST_P(ExpertsTest, FollowTheFormulaAtTheEdgesOfTiles) {
  // 0, 1, 15, 16, 17, 127 and 129 slots.
  const std::vector<std::int64_t> start{0, 0, 1, 16, 32, 49, 176, 305};
  for (const DType dtype : {DType::bf16, DType::f8_e4m3}) expect_formula(*backend, dtype, {192, 160}, 50, start);
  // Whole tiles, and one more than whole.
  expect_formula(*backend, DType::f8_e4m3, {256, 128}, 9, {0, 128, 129});
  expect_formula(*backend, DType::bf16, {129, 65}, 9, {0, 64, 129});
}

TEST_P(ExpertsTest, FollowTheFormulaForWideRows) {
  for (const DType dtype : {DType::bf16, DType::f8_e4m3}) expect_formula(*backend, dtype, {3072, 64}, 3, {0, 2, 5});
}

TEST_P(ExpertsTest, FollowTheFormulaForHundredsOfExperts) {
  std::vector<std::int64_t> start{0};  // more experts than a launch lists on a GPU; 0 to 3 slots each
  for (std::int64_t e = 0; e < 600; ++e) start.push_back(start.back() + e * 7 % 4);
  expect_formula(*backend, DType::bf16, {40, 24}, 20, start);
}

TEST_P(ExpertsTest, NormAndMaximumAreThoseOfFBeforeRounding) {
  const Shape shape{700, 64};
  const std::vector<StoredExpert> stored = random_experts(DType::bf16, shape, 1);
  const Result got = run_experts(*backend, stored, random_values(shape.hidden, 1), {0}, {0, 1});
  double square_sum = 0;
  float max = 0;
  for (const float value : got.f) {
    square_sum += static_cast<double>(value) * static_cast<double>(value);
    max = std::max(max, std::abs(value));
  }
  if (backend->compute() == Compute::fp32) {
    EXPECT_FLOAT_EQ(got.norm[0], static_cast<float>(std::sqrt(square_sum)));
    EXPECT_EQ(got.max_abs[0], max);
  } else {
    EXPECT_EQ(to_float(to_bf16(got.max_abs[0])), max);
    EXPECT_NE(got.max_abs[0], max) << "was taken after rounding";
    EXPECT_NEAR(got.norm[0], std::sqrt(square_sum), got.norm[0] / 512);
  }
}

TEST_P(ExpertsTest, SlotsDependOnNothingElse) {
  const Shape shape{288, 160};
  const std::vector<StoredExpert> stored = random_experts(DType::f8_e4m3, shape, 3);
  const std::vector<float> x = random_values(90 * shape.hidden, 7);
  std::vector<std::int32_t> row(700);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<std::int32_t>(i * 13 % 90);
  const std::vector<std::int64_t> start{0, 45, 600, 700};
  const Result together = run_experts(*backend, stored, x, row, start);
  for (const int threads : {1, 3}) {
    EXPECT_EQ(run_experts(*GetParam().make(threads), stored, x, row, start), together) << threads << " threads";
  }
  const auto width = static_cast<std::size_t>(shape.hidden);
  for (const std::size_t slot : {0UL, 31UL, 44UL, 45UL, 555UL, 599UL, 600UL, 699UL}) {
    const auto expert =
        static_cast<std::size_t>(std::upper_bound(start.begin(), start.end(), slot) - start.begin() - 1);
    const Result alone = run_experts(*backend, {stored[expert]}, x, {row[slot]}, {0, 1});
    EXPECT_TRUE(
        std::equal(alone.f.begin(), alone.f.end(), together.f.begin() + static_cast<std::ptrdiff_t>(slot * width)));
    EXPECT_EQ(alone.norm[0], together.norm[slot]);
    EXPECT_EQ(alone.max_abs[0], together.max_abs[slot]);
  }
}

TEST_P(ExpertsTest, SumSquaresOfWhatEntersTheSecondProduct) {
  // w2 with a single one shows one inner channel as f, exactly.
  constexpr std::int64_t kHidden = 160, kInner = 136, kRows = 90;
  const std::vector<std::int64_t> start{0, 45, 45, 700};
  std::vector<std::int32_t> row(700);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<std::int32_t>(i * 13 % kRows);
  const std::vector<float> x = random_values(kRows * kHidden, 7);
  std::vector<StoredExpert> stored = random_experts(DType::f32, {kHidden, kInner}, 3);
  const float one = 1.0f;
  std::uint32_t unit = 0;
  std::memcpy(&unit, &one, sizeof one);
  for (StoredExpert& expert : stored) {
    for (std::int64_t n = 0; n < kHidden; ++n) {
      for (std::int64_t k = 0; k < kInner; ++k) expert.w2.set_bits(n, k, n == k ? unit : 0);
    }
  }
  std::vector<std::int64_t> digits;
  const Result got = run_experts(*backend, stored, x, row, start, &digits);
  for (std::size_t expert = 0; expert < stored.size(); ++expert) {
    for (std::size_t channel = 0; channel < kInner; ++channel) {
      double expected = 0;
      for (std::int64_t slot = start[expert]; slot < start[expert + 1]; ++slot) {
        const double h = got.f[static_cast<std::size_t>(slot) * kHidden + channel];
        expected += h * h;
      }
      const std::size_t low = expert * kSquareDigits * kInner + channel;
      const double sum = static_cast<double>(digits[low + kInner]) + std::ldexp(static_cast<double>(digits[low]), -32);
      ASSERT_NEAR(sum, expected, 0x1p-32 * 700) << "expert " << expert << " channel " << channel;
    }
  }
  EXPECT_EQ(run_experts(*backend, stored, x, row, start), got) << "summing changes nothing";
}

TEST_P(ExpertsTest, AcceptNoSlotsAndNoExperts) {
  const std::vector<StoredExpert> stored = random_experts(DType::bf16, {32, 16}, 2);
  EXPECT_TRUE(run_experts(*backend, stored, random_values(32, 1), {}, {0, 0, 0}).f.empty());
  const std::vector<std::int64_t> start{0};
  backend->experts(nullptr, nullptr, start, {}, nullptr, nullptr, nullptr, {});
}

TEST_P(ExpertsTest, ShowWhatIsNotFiniteInItsOwnSlotOnly) {
  const Shape shape{600, 40};
  const std::vector<StoredExpert> stored = random_experts(DType::bf16, shape, 1);
  std::vector<float> x = random_values(3 * shape.hidden, 7);
  x[static_cast<std::size_t>(shape.hidden)] = std::numeric_limits<float>::quiet_NaN();
  const Result got = run_experts(*backend, stored, x, {0, 1, 2}, {0, 3});
  for (const std::size_t slot : {0UL, 2UL}) {
    EXPECT_TRUE(std::isfinite(got.norm[slot]) && std::isfinite(got.max_abs[slot])) << slot;
  }
  EXPECT_TRUE(std::isnan(got.norm[1]));
  EXPECT_TRUE(std::isnan(got.max_abs[1]));
}

TEST_P(ExpertsTest, SaturateSiluAtBothEnds) {
  StoredExpert expert(DType::f32, {2, 2}, 1);
  const float one = 1.0f, zero = 0.0f;
  std::uint32_t unit = 0, nil = 0;
  std::memcpy(&unit, &one, sizeof one);
  std::memcpy(&nil, &zero, sizeof zero);
  for (StoredWeight* w : {&expert.w1, &expert.w3, &expert.w2}) {
    for (std::int64_t i = 0; i < 4; ++i) w->set_bits(i / 2, i % 2, i % 3 == 0 ? unit : nil);
  }
  const Result got = run_experts(*backend, {expert}, {-1000.0f, 1000.0f}, {0}, {0, 1});
  EXPECT_EQ(got.f[0], 0.0f);                    // silu(-1000) = 0
  EXPECT_EQ(got.f[1], as_act(*backend, 1e6f));  // silu(1000) * 1000
}

REAP_TEST_ON_BACKENDS(ExpertsTest);

}  // namespace
}  // namespace reap::test
