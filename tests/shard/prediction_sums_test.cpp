#include "shard/prediction_sums.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace reap {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::array<std::int64_t, 2> kBoth{0, 1};

TEST(PredictionSums, MeansByHand) {
  PredictionSums sums(2, 2);
  EXPECT_TRUE(sums.add(1, 0, {.nll = 1, .kl = 0.5, .overlap = 0.75, .agrees = true}));
  EXPECT_TRUE(sums.add(1, 0, {.nll = 2, .kl = 0, .overlap = 0.25, .agrees = false}));
  EXPECT_TRUE(sums.add(1, 1, {.nll = 9, .kl = 1, .overlap = 0.5, .agrees = false}));
  const MeanMeasures first = sums.mean(1, std::array<std::int64_t, 1>{0});
  EXPECT_EQ(first.predicted, 2);
  EXPECT_EQ(first.nll, 1.5);
  EXPECT_EQ(first.kl, 0.25);
  EXPECT_EQ(first.overlap, 0.5);
  EXPECT_EQ(first.top1, 0.5);
  EXPECT_EQ(sums.mean(1, kBoth).nll, 4);
  EXPECT_EQ(sums.mean(1, kBoth).top1, 1.0 / 3);
}

TEST(PredictionSums, MeansOfNothingAreNotNumbers) {
  const MeanMeasures none = PredictionSums(1, 2).mean(0, kBoth);
  EXPECT_EQ(none.predicted, 0);
  EXPECT_TRUE(std::isnan(none.nll) && std::isnan(none.kl) && std::isnan(none.overlap) && std::isnan(none.top1));
}

TEST(PredictionSums, RefuseWhatIsNotFiniteOrFitsNot) {
  PredictionSums sums(1, 1);
  for (const double bad : {kNan, std::numeric_limits<double>::infinity(), -1.0, 1e19}) {
    EXPECT_FALSE(sums.add(0, 0, {.nll = bad, .kl = 0, .overlap = 0, .agrees = true})) << bad;
    EXPECT_FALSE(sums.add(0, 0, {.nll = 0, .kl = bad, .overlap = 0, .agrees = true})) << bad;
    EXPECT_FALSE(sums.add(0, 0, {.nll = 0, .kl = 0, .overlap = bad, .agrees = true})) << bad;
  }
  EXPECT_EQ(sums.mean(0, std::array<std::int64_t, 1>{0}).predicted, 0);
}

TEST(PredictionSums, AreTheSameBitsOverAnyRanks) {
  constexpr std::int64_t kTokens = 1000;
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  PredictionSums whole(3, 4);
  PredictionSums shared(3, 4);
  for (std::int64_t i = 0; i < kTokens; ++i) {
    const auto x = static_cast<double>(i);
    const TokenMeasures token{.nll = 3 + std::sin(x), .kl = 1e-9 * x, .overlap = 1 / (1 + x), .agrees = i % 7 != 0};
    ASSERT_TRUE(whole.add(i % 3, i % 4, token));
    const bool own = i * 13 % world.size() == world.rank();
    ASSERT_TRUE(!own || shared.add(i % 3, i % 4, token));
    if (i % 100 == 0) shared.normalise();
  }
  whole.all_sum(alone);
  shared.all_sum(world);
  EXPECT_TRUE(std::ranges::equal(shared.sums(), whole.sums()));
}

}  // namespace
}  // namespace reap
