#include "driver/criteria.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "driver/expect_error.hpp"
#include "driver/plan.hpp"
#include "driver/synthetic_saliency.hpp"

namespace reap {
namespace {

/// 64 experts of random sums and counts, one of them without tokens.
SaliencyFile random_layer() {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> mean(0.1, 4.0);
  std::uniform_int_distribution<std::int64_t> count(1, 5000);
  std::vector<Seen> even(64), odd(64);
  for (std::size_t e = 1; e < 64; ++e) {
    even[e].count = count(random);
    even[e].gate_norm = mean(random) * static_cast<double>(even[e].count);
  }
  return layer_of({"all"}, {even, odd});
}

std::vector<double> scores_of(const SaliencyFile& file, std::string_view criterion) {
  return scores(whole_totals(file.saliency), parse_criterion(criterion), 0);
}

TEST(ReapAlpha, EndsAreReapAndItsSumToTheBit) {
  const SaliencyFile file = random_layer();
  EXPECT_EQ(scores_of(file, "reap:1"), scores_of(file, "reap"));
  EXPECT_EQ(scores_of(file, "reap:0"), scores_of(file, "reap_sum"));
  for (const double ratio : {0.25, 0.5}) {
    PlanRequest mean, one;
    mean.ratio = one.ratio = ratio;
    one.criterion = "reap:1";
    EXPECT_EQ(make_plan(file, one).layers[0].keep, make_plan(file, mean).layers[0].keep);
  }
}

TEST(ReapAlpha, LiesBetween) {
  const SaliencyFile file = layer_of({"all"}, {{{6, 4}, {5, 1}}, {{}, {}}});
  EXPECT_EQ(scores_of(file, "reap:0.5"), (std::vector<double>{3, 5})) << "6 / sqrt 4, 5 / sqrt 1";
  const double quarter = scores_of(file, "reap:0.25")[0];
  EXPECT_NEAR(quarter, 6 / std::sqrt(2.0), 1e-15);
}

TEST(ReapAlpha, OneSpellingOfEveryNumber) {
  EXPECT_EQ(parse_criterion("reap:.50").name, "reap:0.5");
  EXPECT_EQ(parse_criterion("reap:1.0").name, "reap:1");
  EXPECT_EQ(parse_criterion("reap:-0").name, "reap:0");
  EXPECT_EQ(parse_criterion("reap:5e-1").name, "reap:0.5");
  EXPECT_EQ(parse_criterion("reap").name, "reap");
  PlanRequest request;
  request.criterion = "reap:.50";
  EXPECT_EQ(make_plan(random_layer(), request).request.criterion, "reap:0.5");
}

TEST(Criterion, RefusesWhatIsNone) {
  for (const char* text : {"reap:2", "reap:1.0000001", "reap:-0.1", "reap:", "reap:x", "reap:0.5x", "reap:nan",
                           "reap:inf", "reap:0.5:0.5", "reap: 0.5"}) {
    expect_error(ExitCode::usage, {text, "number from 0 to 1"}, [&] { parse_criterion(text); });
  }
  for (const char* text : {"", ":", "reap_sum:1", "Reap", "reapALPHA", "frequency:0.5"}) {
    expect_error(ExitCode::usage, {"not known", "reap:ALPHA", "random"}, [&] { parse_criterion(text); });
  }
}

TEST(Criterion, NamesAreGoodForFolders) {
  PlanRequest request;
  request.criterion = parse_criterion("reap:0.50").name;
  request.ratio = 0.25;
  EXPECT_EQ(plan_name(request), "reap_0.5-0.25");
  request.keep = 192;
  EXPECT_EQ(plan_name(request), "reap_0.5-keep-192");
}

}  // namespace
}  // namespace reap
