#include "driver/gram_choice.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "driver/expect_error.hpp"
#include "driver/output_plan.hpp"
#include "driver/plan.hpp"
#include "driver/stability_report.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

using Ids = std::vector<std::int32_t>;

/// Gated outputs of every token, [tokens][experts][hidden]: zero where the token has not chosen the expert.
using Outputs = std::vector<std::vector<std::vector<double>>>;

/// A layer after the others: its G, and a slot for every output that is not zero.
void add_layer(SaliencyFile& file, const Outputs& outputs) {
  const auto experts = static_cast<std::int64_t>(outputs[0].size());
  Saliency& s = file.saliency;
  Saliency grown(2, s.layers + 1, experts);
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    for (std::int64_t e = 0; e < experts; ++e) grown.count(0, layer, e) = s.count(0, layer, e);
  }
  grown.gram = std::move(s.gram);
  s = std::move(grown);
  const std::int64_t layer = s.layers - 1;
  for (const auto& token : outputs) {
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto& f = token[static_cast<std::size_t>(e)];
      if (std::ranges::any_of(f, [](double value) { return value != 0; })) ++s.count(0, layer, e);
    }
  }
  for (std::size_t i = 0; std::cmp_less(i, experts); ++i) {
    for (std::size_t j = i; std::cmp_less(j, experts); ++j) {
      double sum = 0;
      for (const auto& token : outputs) {
        for (std::size_t k = 0; k < token[i].size(); ++k) sum += token[i][k] * token[j][k];
      }
      Digits digits{};
      ASSERT_TRUE(to_signed_digits(sum, kPairFractionBits, digits));
      ASSERT_TRUE(normalise_signed(digits));
      s.gram.insert(s.gram.end(), digits.begin(), digits.end());
    }
  }
}

/// The squared error of dropping `gone`, token by token, as a share of that of dropping all.
double naive_error(const Outputs& outputs, const Ids& gone) {
  double error = 0, energy = 0;
  for (const auto& token : outputs) {
    for (std::size_t k = 0; k < token[0].size(); ++k) {
      double lost = 0, all = 0;
      for (const std::int32_t e : gone) lost += token[static_cast<std::size_t>(e)][k];
      for (const auto& f : token) all += f[k];
      error += lost * lost;
      energy += all * all;
    }
  }
  return error / energy;
}

Outputs random_outputs(std::uint32_t seed, std::size_t tokens, std::size_t experts, std::size_t top_k, double size) {
  std::mt19937 random(seed);
  Outputs outputs(tokens, std::vector(experts, std::vector<double>(5)));
  for (auto& token : outputs) {
    for (std::size_t k = 0; k < top_k; ++k) {
      const std::size_t e = random() % (experts - 1);  // the last one is never chosen
      for (double& value : token[e])
        value = size * (static_cast<double>(random() % 2001) / 1000 - 1 + 0.1 * static_cast<double>(e));
    }
  }
  return outputs;
}

SaliencyFile file_of(const std::vector<Outputs>& layers, std::int64_t top_k) {
  SaliencyFile file;
  file.info.top_k = top_k;
  file.info.model_digest = "digest";
  for (const Outputs& outputs : layers) add_layer(file, outputs);
  return file;
}

std::vector<std::int64_t> counts(const Saliency& s, std::int64_t layer) {
  std::vector<std::int64_t> all;
  for (std::int64_t e = 0; e < s.experts; ++e) all.push_back(s.count(0, layer, e));
  return all;
}

PlanRequest gram(double ratio, Allocation allocation = Allocation::layer) {
  PlanRequest request;
  request.criterion = "gram";
  request.ratio = ratio;
  request.allocation = allocation;
  return request;
}

constexpr double kRounding = 1e-12;  // of sums of a hundred doubles, and of G to 2^-48

TEST(RemovalOrder, EachNextExpertAddsLeastByNaiveLoops) {
  const Outputs outputs = random_outputs(3, 60, 9, 3, 1);
  const SaliencyFile file = file_of({outputs}, 1);
  const RemovalOrder order = removal_order(file.saliency, 0, counts(file.saliency, 0), std::vector<bool>(9, false));
  ASSERT_EQ(order.expert.size(), 9U);
  EXPECT_EQ(order.expert[0], 8) << "never chosen";
  EXPECT_EQ(order.error[0], 0);
  Ids gone{8};
  for (std::size_t place = 1; place < 9; ++place) {
    double least = std::numeric_limits<double>::infinity();
    for (std::int32_t e = 0; e < 8; ++e) {
      if (std::ranges::find(gone, e) != gone.end()) continue;
      Ids with = gone;
      with.push_back(e);
      least = std::min(least, naive_error(outputs, with));
    }
    gone.push_back(order.expert[place]);
    EXPECT_NEAR(order.error[place], naive_error(outputs, gone), kRounding);
    EXPECT_NEAR(order.error[place], least, kRounding);
  }
  EXPECT_NEAR(order.error.back(), 1, kRounding);
}

TEST(RemovalOrder, IsWhatInspectTells) {
  const Outputs outputs = random_outputs(3, 60, 9, 3, 1);
  SaliencyFile file = file_of({outputs}, 3);
  file.info.domains = {"all"};
  const Json json = Json::parse(stability_json(file, {}));
  const auto removed = json["gram"]["removed"][0].get<Ids>();
  const auto error = json["gram"]["error"][0].get<std::vector<double>>();
  ASSERT_EQ(removed.size(), 9U);
  ASSERT_EQ(error.size(), 9U);
  for (std::size_t gone = 1; gone <= removed.size(); ++gone) {
    EXPECT_NEAR(error[gone - 1],
                naive_error(outputs, Ids(removed.begin(), removed.begin() + static_cast<std::ptrdiff_t>(gone))),
                kRounding)
        << gone;
  }
}

TEST(RemovalOrder, SeesWhatScoresByExpertCannot) {
  // Experts 0 and 1 are large and cancel each other; 2 is small, 3 middling.
  const SaliencyFile file = file_of({{{{4, 0}, {-4, 0}, {0, 1}, {0, 0}}, {{0, 0}, {0, 0}, {0, 1}, {2, 0}}}}, 1);
  const RemovalOrder order = removal_order(file.saliency, 0, counts(file.saliency, 0), std::vector<bool>(4, false));
  EXPECT_EQ(order.expert, (Ids{2, 3, 1, 0}));
  EXPECT_EQ(order.error.back(), 1.0);
}

TEST(RemovalOrder, OfEqualsTheHigherIdGoesAndExemptOnesStay) {
  const Outputs same{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
  const SaliencyFile file = file_of({same}, 1);
  const auto order = [&](const std::vector<bool>& exempt) {
    return removal_order(file.saliency, 0, counts(file.saliency, 0), exempt).expert;
  };
  EXPECT_EQ(order(std::vector<bool>(4, false)), (Ids{3, 2, 1, 0}));
  EXPECT_EQ(order({false, false, true, false}), (Ids{3, 1, 0}));
}

TEST(ShareBudget, GivesWhereItCostsLeast) {
  const std::vector<RemovalOrder> layers{{{0, 1, 2}, {0.1, 0.3, 0.9}}, {{0, 1, 2}, {0.05, 0.1, 0.6}}};
  EXPECT_EQ(share_budget(layers, {2, 2}, 1), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(share_budget(layers, {2, 2}, 2), (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(share_budget(layers, {2, 2}, 3), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(share_budget(layers, {2, 2}, 4), (std::vector<std::int64_t>{2, 2})) << "never more than a layer can give";
  EXPECT_EQ(share_budget({layers[0], layers[0]}, {2, 2}, 1), (std::vector<std::int64_t>{1, 0}))
      << "of equals the lower";
  expect_error(ExitCode::usage, {"5 experts", "only 4"}, [&] { share_budget(layers, {2, 2}, 5); });
}

TEST(GramPlan, KeepsWhoHasNoPlaceAmongTheFirstToGo) {
  const std::vector<Outputs> layers{random_outputs(1, 80, 8, 2, 1), random_outputs(2, 80, 8, 2, 30)};
  const SaliencyFile file = file_of(layers, 2);
  const Plan plan = make_plan(file, gram(0.5));
  EXPECT_EQ(plan.kept, 4);
  for (std::size_t l = 0; l < 2; ++l) {
    const RemovalOrder order =
        removal_order(file.saliency, static_cast<std::int64_t>(l), plan.layers[l].count, std::vector<bool>(8, false));
    Ids kept(order.expert.begin() + 4, order.expert.end());
    std::ranges::sort(kept);
    EXPECT_EQ(plan.layers[l].keep, kept);
    EXPECT_EQ(plan.layers[l].score[static_cast<std::size_t>(order.expert[3])], order.error[3]);
    EXPECT_EQ(plan.layers[l].margin, order.error[4] - order.error[3]);
  }
  EXPECT_EQ(plan_text(parse_plan(plan_text(plan), "p")), plan_text(plan));
}

TEST(GramPlan, ProtectedExpertsStayAndAreListed) {
  SaliencyFile file = file_of({random_outputs(1, 80, 8, 2, 1)}, 1);
  file.saliency.max_abs[2] = 1000;  // super by far, in the only layer: beyond the first three quarters
  PlanRequest request = gram(0.5);
  request.preserve_super_experts = true;
  EXPECT_TRUE(make_plan(file, request).layers[0].preserved.empty());
  file = file_of({random_outputs(1, 80, 8, 2, 1), random_outputs(2, 80, 8, 2, 1)}, 1);
  file.saliency.max_abs[7] = 1000;  // no token chose it: the first to go
  const Plan plan = make_plan(file, request);
  EXPECT_EQ(plan.layers[0].preserved, (Ids{7}));
  EXPECT_EQ(plan.layers[0].keep.back(), 7);
  EXPECT_EQ(plan.layers[0].keep.size(), 4U);
}

TEST(GramPlan, OneBudgetForAllLayers) {
  // Layers of unlike size weigh the same: each error is a share of its own layer's energy.
  const Outputs even = random_outputs(1, 80, 8, 2, 1);
  Outputs skewed = random_outputs(2, 80, 8, 2, 100);
  for (auto& token : skewed) {
    for (std::size_t e = 3; e < 8; ++e) {
      for (double& value : token[e]) value /= 1000;
    }
  }
  const SaliencyFile file = file_of({even, skewed}, 2);
  const Plan plan = make_plan(file, gram(0.5, Allocation::global));
  EXPECT_EQ(plan.kept, 4);
  EXPECT_EQ(plan.layers[0].keep.size() + plan.layers[1].keep.size(), 8U);
  EXPECT_GT(plan.layers[0].keep.size(), plan.layers[1].keep.size());
  EXPECT_GE(plan.layers[1].keep.size(), 2U);
  const std::string text = plan_text(plan);
  EXPECT_NE(text.find("\"allocation\": \"global\""), std::string::npos);
  EXPECT_EQ(plan_text(parse_plan(text, "p")), text);
  EXPECT_NE(plan_table(plan).find("on average"), std::string::npos);
  EXPECT_EQ(plan_name(plan.request), "gram-global-0.5");
  expect_error(ExitCode::usage, {"num_local_experts", "--form substitution"},
               [&] { check_counts_of(plan.request, Form::ordinary); });
}

TEST(GramPlan, LayersNeverKeepFewerThanTopK) {
  Outputs nothing = random_outputs(2, 80, 8, 2, 1e-5);
  for (auto& token : nothing) token[0][0] = 100;  // all of the energy: the others are free to go
  const Plan plan = make_plan(file_of({random_outputs(1, 80, 8, 2, 1), nothing}, 3), gram(0.5, Allocation::global));
  EXPECT_EQ(plan.layers[1].keep.size(), 3U);
  EXPECT_EQ(plan.layers[0].keep.size(), 5U);
}

TEST(GramPlan, RefusesWhatItCannotRestOn) {
  const SaliencyFile file = file_of({random_outputs(1, 80, 8, 2, 1)}, 2);
  SaliencyFile bare = file;
  bare.saliency.gram.clear();
  expect_error(ExitCode::usage, {"--collect gram"}, [&] { make_plan(bare, gram(0.5)); });
  PlanRequest request = gram(0.5);
  request.domain_weights = {{"code", 2}};
  expect_error(ExitCode::usage, {"--domain-weight"}, [&] { kept_experts(request, 8, 2); });
  request = gram(0.5, Allocation::global);
  request.keep_multiple = 4;
  expect_error(ExitCode::usage, {"--keep-multiple"}, [&] { make_plan(file, request); });
  request = gram(0.5, Allocation::global);
  request.criterion = "reap";
  expect_error(ExitCode::usage, {"--allocation global", "gram"}, [&] { make_plan(file, request); });
}

TEST(GramPlan, FilesWithOtherCountsThanTheyPromiseAreRefused) {
  const SaliencyFile file = file_of({random_outputs(1, 80, 8, 2, 1), random_outputs(2, 80, 8, 2, 1)}, 2);
  Plan plan = make_plan(file, gram(0.5, Allocation::global));
  plan.layers[0].keep.pop_back();
  expect_error(ExitCode::bad_input, {"p: its layers keep 7 experts"}, [&] { parse_plan(plan_text(plan), "p"); });
  plan.layers[0].keep = {0};
  expect_error(ExitCode::bad_input, {"layer 0", "top-2"}, [&] { parse_plan(plan_text(plan), "p"); });
}

}  // namespace
}  // namespace reap
