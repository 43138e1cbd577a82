#include "driver/plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "driver/criteria.hpp"
#include "driver/exemptions.hpp"
#include "golden.hpp"
#include "kernels/error.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

void set(Saliency& s, Field field, std::int64_t layer, std::int64_t expert, double value) {
  const int bits = kFields[static_cast<std::size_t>(field)].fraction_bits;
  Digits digits{};
  ASSERT_TRUE(to_digits(value, bits, digits));
  std::copy(digits.begin(), digits.end(), s.digits(field, 0, layer, expert).begin());
}

/// One layer whose REAP scores are `score`; an expert with score < 0 has seen no token.
SaliencyFile one_layer(const std::vector<double>& score, std::int64_t top_k = 1) {
  SaliencyFile file;
  file.info.top_k = top_k;
  file.info.model_digest = "digest";
  file.saliency = Saliency(2, 1, static_cast<std::int64_t>(score.size()));
  for (std::size_t e = 0; e < score.size(); ++e) {
    if (score[e] < 0) continue;
    const auto expert = static_cast<std::int64_t>(e);
    file.saliency.count(0, 0, expert) = 4;
    set(file.saliency, Field::gate_norm, 0, expert, 4 * score[e]);
  }
  return file;
}

PlanRequest by_ratio(double ratio) {
  PlanRequest request;
  request.ratio = ratio;
  return request;
}

std::vector<std::int32_t> kept(const SaliencyFile& file, const PlanRequest& request) {
  return make_plan(file, request).layers[0].keep;
}

std::string refusal(const SaliencyFile& file, const PlanRequest& request) {
  try {
    make_plan(file, request);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

using Ids = std::vector<std::int32_t>;

TEST(Plan, DropsTheLowestMean) {
  const Plan plan = make_plan(one_layer({0.5, 0.125, 2, 1}), by_ratio(0.5));
  EXPECT_EQ(plan.layers[0].keep, (Ids{2, 3}));
  EXPECT_EQ(plan.layers[0].score, (std::vector<double>{0.5, 0.125, 2, 1}));
  EXPECT_EQ(plan.layers[0].margin, 0.5);
  EXPECT_EQ(plan.kept, 2);
}

TEST(Plan, OfEqualsTheLowerIdStays) { EXPECT_EQ(kept(one_layer({1, 1, 1, 1}), by_ratio(0.5)), (Ids{0, 1})); }

TEST(Plan, ExpertsWithoutTokensGoFirst) {
  EXPECT_EQ(kept(one_layer({-1, 0, 0.5, -1}), by_ratio(0.25)), (Ids{0, 1, 2})) << "of equals the higher id goes";
  EXPECT_EQ(kept(one_layer({-1, 0, 0.5, -1}), by_ratio(0.5)), (Ids{1, 2})) << "a score of 0 beats no token";
}

TEST(Plan, DroppedCountIsThatOfTheReference) {
  // What int(E * ratio) gives in IEEE double, as the reference computes it.
  for (const auto& [experts, ratio, dropped] : std::vector<std::tuple<int, double, int>>{
           {10, 0.3, 3}, {256, 0.25, 64}, {256, 0.3, 76}, {256, 0.5, 128}, {6, 0.25, 1}, {7, 0.4, 2}, {10, 0, 0}}) {
    const SaliencyFile file = one_layer(std::vector<double>(static_cast<std::size_t>(experts), 1.0));
    EXPECT_EQ(make_plan(file, by_ratio(ratio)).kept, experts - dropped) << experts << " x " << ratio;
  }
}

TEST(Plan, KeepMultipleRoundsUp) {
  const SaliencyFile file = one_layer(std::vector<double>(20, 1.0));
  PlanRequest request = by_ratio(0.5);
  request.keep_multiple = 8;
  EXPECT_EQ(make_plan(file, request).kept, 16);
  request.ratio = 0.1;
  EXPECT_EQ(make_plan(file, request).kept, 20) << "never more than there are";
  request.keep_multiple = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(make_plan(file, request).kept, 20);
  request = {};
  request.keep = 7;
  EXPECT_EQ(make_plan(file, request).kept, 7);
}

TEST(Plan, RefusesWhatTheRouterCannotUse) {
  const SaliencyFile file = one_layer({1, 2, 3, 4}, 3);
  EXPECT_NE(refusal(file, by_ratio(0.5)).find("2 of 4 experts per layer would stay, but the router chooses 3"),
            std::string::npos);
  PlanRequest request;
  request.keep = 5;
  EXPECT_NE(refusal(file, request).find("4 experts"), std::string::npos);
  request = by_ratio(0.25);
  request.criterion = "nonsense";
  EXPECT_NE(refusal(file, request).find("nonsense"), std::string::npos);
}

TEST(Plan, RandomIsAFunctionOfItsSeed) {
  const SaliencyFile file = one_layer(std::vector<double>(64, 1.0));
  PlanRequest request = by_ratio(0.5);
  request.criterion = "random";
  const Ids first = kept(file, request);
  EXPECT_EQ(kept(file, request), first);
  request.seed = 1;
  EXPECT_NE(kept(file, request), first);
  double sum = 0;
  for (int e = 0; e < 10'000; ++e) sum += random_score(3, 1, e);
  EXPECT_NEAR(sum / 10'000, 0.5, 0.02) << "five standard errors of a uniform mean are 0.014";
}

/// 4 layers of 100 experts, max|f| = 1 but for the given ones.
FieldTotals outliers(const std::vector<std::pair<std::size_t, double>>& high) {
  FieldTotals t;
  t.layers = 4;
  t.experts = 100;
  t.max_abs.assign(400, 1.0);
  for (const auto& [at, value] : high) t.max_abs[at] = value;
  return t;
}

TEST(SuperExperts, StandOutInTheFirstThreeQuarters) {
  using Pairs = std::vector<std::pair<std::int64_t, std::int64_t>>;
  EXPECT_EQ(super_experts(outliers({{7, 50.0}, {250, 100.0}, {399, 90.0}})), (Pairs{{2, 50}}))
      << "rank 397.0..: the 99.5 % quantile lies between 1 and 50, layer 3 does not count";
  EXPECT_EQ(super_experts(outliers({{7, 9.0}, {250, 100.0}})), (Pairs{{2, 50}})) << "9 is below a tenth of 100";
  EXPECT_EQ(super_experts(outliers({})), Pairs{}) << "nothing is above the quantile when all are equal";
}

TEST(SuperExperts, AreNeverDropped) {
  // 8 layers, the first 6 of them count; expert 0 has the lowest score everywhere and stands out in layer 0.
  SaliencyFile file;
  file.info.top_k = 1;
  file.saliency = Saliency(2, 8, 40);
  for (std::int64_t layer = 0; layer < 8; ++layer) {
    for (std::int64_t e = 0; e < 40; ++e) {
      file.saliency.count(0, layer, e) = 1;
      set(file.saliency, Field::gate_norm, layer, e, 1.0 + static_cast<double>(e));
      file.saliency.max_abs[static_cast<std::size_t>(file.saliency.index(0, layer, e))] = 1;
    }
  }
  file.saliency.max_abs[static_cast<std::size_t>(file.saliency.index(0, 0, 0))] = 100;
  PlanRequest request = by_ratio(0.5);
  EXPECT_EQ(make_plan(file, request).layers[0].keep.front(), 20);
  request.preserve_super_experts = true;
  const Plan plan = make_plan(file, request);
  EXPECT_EQ(plan.layers[0].preserved, (Ids{0}));
  EXPECT_EQ(plan.layers[0].keep.front(), 0);
  EXPECT_EQ(plan.layers[0].keep[1], 21) << "the next lowest goes instead";
  EXPECT_EQ(plan.layers[0].margin, 1) << "between those that their rank decided on";
  EXPECT_EQ(plan.layers[1].keep.front(), 20);
}

TEST(PlanFile, RoundTripsToTheSameBytes) {
  const Plan plan = make_plan(one_layer({0.1, 1.0 / 3, 2e-300, -1}), by_ratio(0.25));
  const std::string text = plan_text(plan);
  EXPECT_EQ(plan_text(parse_plan(text, "text")), text);
  EXPECT_EQ(text.back(), '\n');
}

/// The message of the error that parsing the text causes, after one replacement.
std::string broken(const std::string& from, const std::string& to) {
  std::string text = plan_text(make_plan(one_layer({1, 2, 3, 4}, 2), by_ratio(0.25)));
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  try {
    parse_plan(text, "my.plan.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::bad_input);
    EXPECT_NE(std::string(e.what()).find("my.plan.json"), std::string::npos);
    return e.what();
  }
  ADD_FAILURE() << "accepted " << to;
  return "";
}

TEST(PlanFile, RefusesWhatIsNotAPlan) {
  EXPECT_NE(broken("reap-plan-1", "reap-plan-9").find("reap-plan-9"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[1,3,2]").find("ascend"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[1,1,3]").find("ascend"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[1,2,4]").find("[0, 4)"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[1,2]").find("keeps 2 experts"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":\"all\"").find("wrong type"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[1,2,4294967299]").find("too large"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[1,2,3.5]").find("wrong type"), std::string::npos);
  EXPECT_NE(broken("\"keep\":[1,2,3]", "\"keep\":[true,2,3]").find("wrong type"), std::string::npos);
  EXPECT_NE(broken("\"preserved\":[]", "\"preserved\":[0]").find("not kept"), std::string::npos);
  EXPECT_NE(broken("\"seed\": 0", "\"seed\": -1").find("seed"), std::string::npos);
  EXPECT_NE(broken("\"top_k\": 2", "\"top_k\": 9223372036854775808").find("too large"), std::string::npos);
  EXPECT_NE(broken("\"ratio\": 0.25", "\"ratio\": \"0.25\"").find("ratio"), std::string::npos);
  EXPECT_NE(broken("\"layers\"", "\"layer\"").find("layers"), std::string::npos);
  EXPECT_NE(broken("\"score\":[1.0,", "\"score\":[").find("3 scores"), std::string::npos);
  EXPECT_NE(broken("\"kept\": 3", "\"kept\": 1").find("keeps 1 of 4"), std::string::npos);
  EXPECT_NE(broken("\"criterion\"", "\"criterium\"").find("'criterion' is missing"), std::string::npos);
  EXPECT_NE(broken("\"layer\":0", "\"layer\":1").find("not in order"), std::string::npos);
}

TEST(PlanTable, ShowsTheCut) {
  const std::string table = plan_table(make_plan(one_layer({0.5, 0.125, 2, -1}), by_ratio(0.5)));
  EXPECT_NE(table.find("2 of 4 experts"), std::string::npos);
  EXPECT_NE(table.find("0.125"), std::string::npos);
}

// ---- Kept sets of an independent implementation (tests/data/README.md)

SaliencyFile from_golden(const std::filesystem::path& path, std::int64_t top_k) {
  const test::GoldenFile golden(path);
  const auto shape = golden.shape("model/reap");
  SaliencyFile file;
  file.info.top_k = top_k;
  file.saliency = Saliency(2, shape[0], shape[1]);
  const auto counts = golden.integers("model/count");
  const std::array<std::vector<double>, 5> sums{golden.reals("model/sum_g"), golden.reals("model/sum_norm"),
                                                golden.reals("model/sum_gnorm"), golden.reals("model/sum_norm2"),
                                                golden.reals("model/sum_gnorm2")};
  for (std::int64_t at = 0; at < shape[0] * shape[1]; ++at) {
    const auto i = static_cast<std::size_t>(at);
    file.saliency.count(0, at / shape[1], at % shape[1]) = counts[i];
    for (const FieldInfo& f : kFields) {
      set(file.saliency, f.field, at / shape[1], at % shape[1], sums[static_cast<std::size_t>(f.field)][i]);
    }
  }
  return file;
}

Json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return Json::parse(text.str());
}

/// @return plans compared
int compare_with_golden_plans(const std::filesystem::path& folder) {
  static const std::map<std::string, std::string> kNames = {
      {"reap", "reap"}, {"frequency", "frequency"}, {"ean_sum", "ean_sum"}, {"weighted_ean_sum", "reap_sum"}};
  int compared = 0;
  const Json plans = read_json(folder / "plans.json");
  for (const auto& [tokens, list] : plans.items()) {
    const SaliencyFile file = from_golden(folder / ("saliency_" + tokens + ".h5"), 2);
    for (const Json& golden : list) {
      if (golden["mode"] != "model") continue;
      PlanRequest request = by_ratio(golden["ratio"]);
      request.criterion = kNames.at(golden["metric"]);
      const Plan plan = make_plan(file, request);
      for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
        EXPECT_EQ(plan.layers[layer].keep, golden["layers"][layer]["retained"].get<Ids>())
            << folder << " " << golden["metric"] << " " << request.ratio << " layer " << layer;
      }
      ++compared;
    }
  }
  return compared;
}

TEST(GoldenPlans, BundledModels) {
  for (const char* model : {"m2-mini-bf16", "m2-mini-fp8", "m2-nano-fp8"}) {
    EXPECT_GE(compare_with_golden_plans(test::data("goldens") / model), 16) << model;
  }
}

TEST(GoldenPlans, LargerModels) {
  if (!std::filesystem::exists(test::shared("goldens"))) GTEST_SKIP() << "needs the larger goldens (REAP_SHARED)";
  for (const char* model : {"m2-nano-bf16", "m2-odd-bf16", "m2-odd-fp8", "m2-tiny-bf16"}) {
    EXPECT_GE(compare_with_golden_plans(test::shared("goldens") / model), 16) << model;
  }
}

}  // namespace
}  // namespace reap
