#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backends.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::download;
using test::random_values;
using test::upload;

/// A sigmoid, a sum of up to eight of them and a division, in fp32.
constexpr double kFp32Gate = 2e-6;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Routed {
  std::vector<float> logits;
  std::vector<std::int32_t> expert;
  std::vector<float> gate;
};

/// Routes rows whose logits are `wanted` [rows, experts], by a gate that is the identity.
Routed route(Backend& backend, const std::vector<float>& wanted, const std::vector<float>& bias, std::int64_t top_k) {
  const auto experts = static_cast<std::int64_t>(bias.size());
  const auto rows = static_cast<std::int64_t>(wanted.size()) / experts;
  std::vector<float> identity(bias.size() * bias.size());
  for (std::size_t e = 0; e < bias.size(); ++e) identity[e * bias.size() + e] = 1;
  const WeightSource source{reinterpret_cast<const std::byte*>(identity.data()), DType::f32, experts, experts, nullptr};
  const auto gate = backend.pack(source, Compute::fp32);
  const Buffer<float> logits(backend.memory(), rows * experts);
  const Buffer<std::int32_t> expert(backend.memory(), rows * top_k);
  const Buffer<float> gate_value(backend.memory(), rows * top_k);
  backend.route(upload(backend, wanted).data(), *gate, upload(backend, bias).data(), rows, top_k, logits.data(),
                expert.data(), gate_value.data());
  return {download(backend, logits), download(backend, expert), download(backend, gate_value)};
}

class Route : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(Route);

TEST_P(Route, ByHand) {
  // Sigmoids 0.5, 0.731, 0.881, 0.119; the bias lifts the last one but never enters a gate value.
  const Routed got = route(*backend, {0, 1, 2, -2}, {0, 0, 0, 1}, 2);
  EXPECT_EQ(got.expert, (std::vector<std::int32_t>{2, 3}));
  EXPECT_NEAR(got.gate[0], 0.880797078, kFp32Gate);  // 0.8808 + 0.1192 = 1
  EXPECT_NEAR(got.gate[1], 0.119202922, kFp32Gate);
  EXPECT_EQ(got.logits, (std::vector<float>{0, 1, 2, -2}));
}

TEST_P(Route, ChoosesAsAFullSortDoes) {
  for (const auto& [experts, top_k] : {std::pair{256L, 8L}, {16L, 4L}, {5L, 5L}, {7L, 1L}, {40L, 6L}}) {
    constexpr std::int64_t kRows = 50;
    const std::vector<float> logits = random_values(kRows * experts, 1, -6, 6);
    const std::vector<float> bias = random_values(experts, 2, -0.5f, 0.5f);
    const Routed got = route(*backend, logits, bias, top_k);
    for (std::int64_t row = 0; row < kRows; ++row) {
      std::vector<double> s;
      for (std::int64_t e = 0; e < experts; ++e) {
        s.push_back(1 / (1 + std::exp(-static_cast<double>(logits[static_cast<std::size_t>(row * experts + e)]))));
      }
      std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      const auto score = [&](std::int32_t e) {
        return s[static_cast<std::size_t>(e)] + bias[static_cast<std::size_t>(e)];
      };
      std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return score(a) > score(b); });
      order.resize(static_cast<std::size_t>(top_k));
      std::sort(order.begin(), order.end());
      double total = 0;
      for (const std::int32_t e : order) total += s[static_cast<std::size_t>(e)];
      for (std::int64_t j = 0; j < top_k; ++j) {
        const auto slot = static_cast<std::size_t>(row * top_k + j);
        const auto e = order[static_cast<std::size_t>(j)];
        ASSERT_EQ(got.expert[slot], e) << "row " << row << " of " << experts;
        ASSERT_NEAR(got.gate[slot], s[static_cast<std::size_t>(e)] / total, kFp32Gate);
      }
    }
  }
}

TEST_P(Route, TiesGoToTheLowerExpert) {
  const std::vector<float> logits{1,  1,  1, 1,  1,  1,  // all equal
                                  0,  1,  1, 2,  1,  1,  // one above, four tied for two places
                                  -9, -9, 0, -9, -9, -9};
  const Routed got = route(*backend, logits, std::vector<float>(6), 3);
  EXPECT_EQ(got.expert, (std::vector<std::int32_t>{0, 1, 2, 1, 2, 3, 0, 1, 2}));
  EXPECT_FLOAT_EQ(got.gate[0], 1.0f / 3.0f);
}

TEST_P(Route, TiesOfNegativeScoresToo) {
  const Routed got = route(*backend, {0, 0, 0, 0}, {-3, -2, -2, -2}, 2);
  EXPECT_EQ(got.expert, (std::vector<std::int32_t>{1, 2}));
}

TEST_P(Route, NanScoresGiveNanGates) {
  for (const bool in_bias : {false, true}) {
    std::vector<float> logits{0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0};
    std::vector<float> bias(6);
    if (in_bias) bias[2] = kNan;
    if (!in_bias) std::fill(logits.begin(), logits.begin() + 6, kNan);
    const Routed got = route(*backend, logits, bias, 3);
    for (std::size_t row = 0; row < 2; ++row) {
      for (std::size_t j = 0; j < 3; ++j) {
        const std::size_t slot = row * 3 + j;
        const std::int32_t expert = got.expert[slot];
        EXPECT_TRUE(expert >= 0 && expert < 6 && (j == 0 || expert > got.expert[slot - 1])) << slot;
        if (in_bias || row == 0) {
          EXPECT_TRUE(std::isnan(got.gate[slot])) << slot;
        } else {
          EXPECT_FALSE(std::isnan(got.gate[slot])) << slot;
        }
      }
    }
  }
}

TEST_P(Route, AnInfiniteBiasForbidsOrForces) {
  const Routed got = route(*backend, {5, 0, 0, 0}, {-kInfinity, 0, 0, kInfinity}, 2);
  EXPECT_EQ(got.expert, (std::vector<std::int32_t>{1, 3}));
  EXPECT_FLOAT_EQ(got.gate[0], 0.5f);
}

TEST_P(Route, BitsDoNotDependOnThreadsAndNoRowsAreFine) {
  const std::vector<float> logits = random_values(31 * 48, 3, -4, 4);
  const std::vector<float> bias = random_values(48, 4);
  const Routed two = route(*backend, logits, bias, 6);
  const Routed five = route(*GetParam().make(5), logits, bias, 6);
  EXPECT_EQ(two.expert, five.expert);
  EXPECT_EQ(two.gate, five.gate);
  EXPECT_TRUE(route(*backend, {}, bias, 6).expert.empty());
}

}  // namespace
}  // namespace reap
