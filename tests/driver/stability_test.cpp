#include "driver/stability.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "driver/expect_error.hpp"
#include "driver/stability_report.hpp"
#include "driver/synthetic_saliency.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

using Sets = ExpertSets;

PlanRequest reap_at(double ratio) {
  PlanRequest request;
  request.ratio = ratio;
  return request;
}

/// Two domains of both halves, 4 experts; every expert has 10 tokens in each group.
SaliencyFile four_groups(const std::vector<std::vector<double>>& mean) {
  std::vector<std::vector<Seen>> groups;
  for (const std::vector<double>& group : mean) {
    groups.emplace_back();
    for (const double m : group) groups.back().push_back({10 * m, 10});
  }
  return layer_of({"code", "prose"}, groups);
}

TEST(Stability, HalvesAgreeOnTheExpertsThatBothKeep) {
  // Means of the even samples 2.5, 3, 1, 2: experts 0 and 1 stay. Of the odd ones 1, 3, 2.5, 2: experts 1 and 2.
  const SaliencyFile file = four_groups({{3, 3, 1, 2}, {1, 3, 3, 2}, {2, 3, 1, 2}, {1, 3, 2, 2}});
  const CutStability cut = cut_stability(file, reap_at(0.5));
  EXPECT_EQ(cut.kept, 2);
  EXPECT_EQ(cut.halves, (std::vector<double>{0.5}));
  EXPECT_EQ(cut_stability(file, reap_at(0)).halves, (std::vector<double>{1}));
}

TEST(Stability, DomainsAreComparedByWhatEachAloneWouldKeep) {
  // Code keeps experts 0 and 1, prose 1 and 2.
  const SaliencyFile file = four_groups({{4, 3, 1, 2}, {4, 3, 1, 2}, {1, 3, 4, 2}, {1, 3, 4, 2}});
  const DomainCuts cuts = cut_stability(file, reap_at(0.5)).domains;
  EXPECT_EQ(cuts.names, (std::vector<std::string>{"code", "prose"}));
  EXPECT_EQ(cuts.overlap, (std::vector<std::vector<double>>{{1, 1.0 / 3}, {1.0 / 3, 1}}));
  EXPECT_EQ(cuts.only, (std::vector<Sets>{{{0}}, {{2}}}));
}

TEST(Stability, DomainsWithoutTokensHaveNoOpinion) {
  SaliencyFile file = layer_of({"code", "empty"}, {{{1, 1}, {2, 1}}, {{1, 1}, {2, 1}}, {{}, {}}, {{}, {}}});
  EXPECT_EQ(cut_stability(file, reap_at(0.5)).domains.names, (std::vector<std::string>{"code"}));
}

TEST(Stability, StarvedAreThoseWithFewerTokens) {
  const SaliencyFile file = layer_of({"all"}, {{{1, 60}, {1, 50}, {}, {1, 49}}, {{1, 40}, {1, 50}, {}, {1, 50}}});
  EXPECT_EQ(starved_experts(file.saliency, 100), (Sets{{2, 3}}));
  EXPECT_EQ(starved_experts(file.saliency, 0), (Sets{{}}));
}

// ---- Noise at the cut, where the truth is known

constexpr std::size_t kExperts = 96;

/// Layers of experts whose true mean is known, as two halves of finitely many tokens show them.
struct Observed {
  std::vector<std::vector<double>> truth;  // [layers][experts]
  SaliencyFile file;
};

/// The relative variance of a half's mean is `dispersion` / its tokens. Means and counts are independent.
Observed observe(std::int64_t layers, double dispersion, std::mt19937& random) {
  std::uniform_real_distribution<double> mean(1, 3);
  std::uniform_int_distribution<std::int64_t> tokens(100, 2000);
  std::normal_distribution<double> standard;
  Observed result{{}, {}};
  result.file.info.top_k = 1;
  result.file.info.domains = {"all"};
  result.file.saliency = Saliency(2, layers, kExperts);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::vector<double>& truth = result.truth.emplace_back();
    for (std::int64_t e = 0; e < static_cast<std::int64_t>(kExperts); ++e) {
      truth.push_back(mean(random));
      const std::int64_t half = tokens(random);
      for (std::int64_t group = 0; group < 2; ++group) {
        const double error = truth.back() * std::sqrt(dispersion / static_cast<double>(half)) * standard(random);
        result.file.saliency.count(group, layer, e) = half;
        set_sum(result.file.saliency, Field::gate_norm, group, layer, e,
                (truth.back() + error) * static_cast<double>(half));
      }
    }
  }
  return result;
}

/// Kept experts that do not belong to the `kept` with the highest true means.
double wrongly_kept(const Observed& observed, const WeightedTotals& totals, std::size_t layer, std::int64_t kept) {
  std::vector<std::pair<double, std::size_t>> truth, shown;
  const std::vector<double>& sum = totals.sum[static_cast<std::size_t>(Field::gate_norm)];
  for (std::size_t e = 0; e < kExperts; ++e) {
    const std::size_t at = layer * kExperts + e;
    truth.emplace_back(-observed.truth[layer][e], e);
    shown.emplace_back(-sum[at] / static_cast<double>(totals.count[at]), e);
  }
  std::sort(truth.begin(), truth.end());
  std::sort(shown.begin(), shown.end());
  std::set<std::size_t> right;
  for (std::int64_t i = 0; i < kept; ++i) right.insert(truth[static_cast<std::size_t>(i)].second);
  double wrong = 0;
  for (std::int64_t i = 0; i < kept; ++i) wrong += right.contains(shown[static_cast<std::size_t>(i)].second) ? 0 : 1;
  return wrong;
}

TEST(CutNoise, FindsTheDispersionAndTheChangesThatAreTrue) {
  // Some 300 changes are counted, whose standard error is 6 %.
  constexpr double kCounting = 0.18;
  constexpr std::int64_t kLayers = 300;
  std::mt19937 random(3);
  for (const double dispersion : {1.0, 4.0}) {
    const Observed observed = observe(kLayers, dispersion, random);
    const WeightedTotals totals = whole_totals(observed.file.saliency);
    for (const double ratio : {0.25, 0.5}) {
      const CutStability cut = cut_stability(observed.file, reap_at(ratio));
      double expected = 0, wrong = 0, found = 0;
      for (std::size_t layer = 0; layer < cut.noise.size(); ++layer) {
        ASSERT_TRUE(cut.noise[layer].has_value());
        expected += cut.noise[layer]->changes;
        found += cut.noise[layer]->dispersion / static_cast<double>(kLayers);
        wrong += wrongly_kept(observed, totals, layer, cut.kept);
      }
      EXPECT_GT(wrong, 200) << "too few to judge by";
      EXPECT_NEAR(expected / wrong, 1, kCounting) << expected << " expected, " << wrong << " true, at " << ratio;
      EXPECT_NEAR(found / dispersion, 1, 0.05);
    }
  }
}

TEST(CutNoise, MarginIsInStandardErrors) {
  // Scores 1..8 of 16 tokens, halves differing by a tenth either way: dispersion 16 * 0.1^2.
  std::vector<Seen> even, odd;
  for (int e = 0; e < 8; ++e) {
    const double sign = e % 2 == 0 ? 1 : -1;
    even.push_back({8 * (e + 1) * (1 + 0.1 * sign), 8});
    odd.push_back({8 * (e + 1) * (1 - 0.1 * sign), 8});
  }
  const CutStability cut = cut_stability(layer_of({"all"}, {even, odd}), reap_at(0.5));
  ASSERT_TRUE(cut.noise[0].has_value());
  const double scale = 36.0 / 35.6, other = 36.0 / 36.4;  // 36 in all; even experts hold 16 of it, odd ones 20
  const double low = (1.1 * scale - 0.9 * other) / 2, high = (0.9 * scale - 1.1 * other) / 2;
  const double dispersion = 16 * (low * low + high * high) / 2;
  EXPECT_NEAR(cut.noise[0]->dispersion, dispersion, 1e-9);
  const double error = std::sqrt(dispersion / 16);
  EXPECT_NEAR(cut.noise[0]->margin.value(), 1 / std::hypot(5 * error, 4 * error), 1e-9);
  EXPECT_NEAR(cut.noise[0]->changes, 0.137559, 1e-6) << "worked out by hand with the normal distribution";
}

TEST(CutNoise, EqualHalvesLeaveNoDoubt) {
  std::vector<Seen> half;
  for (int e = 0; e < 8; ++e) half.push_back({10.0 * (e + 1), 10});
  const CutStability cut = cut_stability(layer_of({"all"}, {half, half}), reap_at(0.5));
  ASSERT_TRUE(cut.noise[0].has_value());
  EXPECT_EQ(cut.noise[0]->dispersion, 0);
  EXPECT_EQ(cut.noise[0]->changes, 0);
  EXPECT_FALSE(cut.noise[0]->margin.has_value());
}

TEST(CutNoise, SaysNothingWhereHalvesSayNothing) {
  const std::vector<Seen> some(8, Seen{10, 10}), few(8, Seen{7, 7}), none(8);
  EXPECT_FALSE(cut_stability(layer_of({"all"}, {some, none}), reap_at(0.5)).noise[0].has_value());
  EXPECT_FALSE(cut_stability(layer_of({"all"}, {some, few}), reap_at(0.5)).noise[0].has_value());
  PlanRequest random = reap_at(0.5);
  random.criterion = "random";
  EXPECT_TRUE(cut_stability(layer_of({"all"}, {some, some}), random).noise.empty()) << "a draw has no noise";
}

// ---- The report

TEST(StabilityReport, ForPrograms) {
  SaliencyFile file = four_groups({{4, 3, 1, 2}, {4, 3, 1, 2}, {1, 3, 4, 2}, {1, 3, 4, 2}});
  file.info.model_type = "minimax_m2";
  const StabilityReport report = report_stability(file, {{"reap", "max_activation"}, {0.5}, 41});
  const std::string line = stability_json(file, report);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const Json json = Json::parse(line);
  EXPECT_EQ(json["format"], "reap-stability");
  EXPECT_EQ(json["domains"][0]["name"], "code");
  EXPECT_EQ(json["domains"][0]["tokens"], 80);
  EXPECT_EQ(json["starved"], Json::parse(R"({"below": 41, "experts": [[0, 1, 2, 3]]})"));
  const Json& cut = json["cuts"][0];
  EXPECT_EQ(cut["criterion"], "reap");
  EXPECT_EQ(cut["kept"], 2);
  EXPECT_EQ(cut["halves"], Json::parse("[1.0]"));
  EXPECT_EQ(cut["noise"], Json::parse(R"({"dispersion": [0.0], "margin": [null], "changes": [0.0]})"));
  EXPECT_EQ(cut["domains"]["only"], Json::parse("[[[0]], [[2]]]"));
  EXPECT_TRUE(json["cuts"][1]["noise"].is_null());
}

TEST(StabilityReport, UsualRatiosAreThoseThatTheRouterAllows) {
  SaliencyFile file = four_groups({{4, 3, 1, 2}, {4, 3, 1, 2}, {1, 3, 4, 2}, {1, 3, 4, 2}});
  EXPECT_EQ(report_stability(file, {}).cuts.size(), 2u);
  file.info.top_k = 3;
  EXPECT_EQ(report_stability(file, {}).cuts.size(), 1u);
  file.info.top_k = 4;
  EXPECT_EQ(report_stability(file, {}).cuts.size(), 0u);
  EXPECT_FALSE(stability_text(file, report_stability(file, {})).empty());
  expect_error(ExitCode::usage, {"router chooses 4"}, [&] { report_stability(file, {{"reap"}, {0.5}, 100}); });
}

}  // namespace
}  // namespace reap
