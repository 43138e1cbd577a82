// Plans that treat domains differently: weights, and experts protected for the sake of one domain.
#include <gtest/gtest.h>

#include <random>

#include "driver/expect_error.hpp"
#include "driver/plan.hpp"
#include "driver/synthetic_saliency.hpp"
#include "driver/weighted_totals.hpp"

namespace reap {
namespace {

using Ids = std::vector<std::int32_t>;
using Numbers = std::vector<DomainNumber>;

PlanRequest request_for(double ratio, Numbers weights, Numbers protect = {}) {
  PlanRequest request;
  request.ratio = ratio;
  request.domain_weights = std::move(weights);
  request.protect = std::move(protect);
  return request;
}

/// Two domains of both halves. Expert:     0        1        2        3
///                         code:   sum 8 of 4  1 of 2  3 of 6  none
///                         prose:  none        9 of 3  3 of 2  2 of 1
SaliencyFile code_and_prose() {
  return layer_of(
      {"code", "prose"},
      {{{5, 3}, {1, 2}, {1, 2}, {}}, {{3, 1}, {}, {2, 4}, {}}, {{}, {4, 1}, {3, 2}, {2, 1}}, {{}, {5, 2}, {}, {}}});
}

std::vector<double> score_of(Numbers weights, const std::string& criterion = "reap") {
  PlanRequest request = request_for(0, std::move(weights));
  request.criterion = criterion;
  return make_plan(code_and_prose(), request).layers[0].score;
}

TEST(DomainWeights, WeighSumsAndCountsBeforeTheFormula) {
  using Scores = std::vector<double>;
  EXPECT_EQ(score_of({}), (Scores{2, 2, 0.75, 2}));
  EXPECT_EQ(score_of({{"code", 2}}), (Scores{2, 11.0 / 7, 9.0 / 14, 2})) << "(2 * 1 + 9) / (2 * 2 + 3), ...";
  EXPECT_EQ(score_of({{"code", 2}}, "frequency"), (Scores{8, 7, 14, 1}));
  EXPECT_EQ(score_of({{"code", 2}, {"prose", 0.5}}, "reap_sum"), (Scores{16, 6.5, 7.5, 1}));
}

TEST(DomainWeights, ZeroLeavesADomainOut) {
  const Plan plan = make_plan(code_and_prose(), request_for(0.25, {{"prose", 0}}));
  EXPECT_EQ(plan.layers[0].score, (std::vector<double>{2, 0.5, 0.5, 0}));
  EXPECT_EQ(plan.layers[0].count, (std::vector<std::int64_t>{4, 2, 6, 0})) << "tokens of domains that count";
  EXPECT_EQ(plan.layers[0].keep, (Ids{0, 1, 2})) << "expert 3 has no token but of prose";
}

TEST(DomainWeights, OfOneChangeNoByte) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> value(0, 100);
  std::vector<std::vector<Seen>> groups(6, std::vector<Seen>(32));
  for (auto& group : groups) {
    for (Seen& seen : group) seen = {value(random), 1 + static_cast<std::int64_t>(value(random))};
  }
  const SaliencyFile file = layer_of({"a", "b", "c"}, groups);
  const std::string plain = plan_text(make_plan(file, request_for(0.5, {})));
  EXPECT_EQ(plan_text(make_plan(file, request_for(0.5, {{"a", 1}, {"b", 1}, {"c", 1}}))), plain);
  EXPECT_NE(plan_text(make_plan(file, request_for(0.5, {{"b", 1.5}}))), plain);
}

TEST(DomainWeights, TheOrderOfDomainsChangesNoBit) {
  const std::vector<std::vector<Seen>> groups = {{{0.1, 1}}, {{0.7, 1}}, {{1e9, 3}}, {{0.3, 1}}, {{1e-9, 1}}, {{5, 2}}};
  const auto sum = [&](const std::vector<std::size_t>& order, std::vector<double> weights) {
    std::vector<std::vector<Seen>> shuffled;
    for (const std::size_t group : order) shuffled.push_back(groups[group]);
    const auto totals = weighted_totals(layer_of({"a", "b", "c"}, shuffled).saliency, weights);
    return totals.sum[static_cast<std::size_t>(Field::gate_norm)][0];
  };
  EXPECT_EQ(sum({0, 1, 2, 3, 4, 5}, {3, 3, 0.1, 0.1, 7, 7}), sum({4, 5, 2, 3, 0, 1}, {7, 7, 0.1, 0.1, 3, 3}));
}

TEST(DomainWeights, AreWrittenAndReadBack) {
  const Plan plan = make_plan(code_and_prose(), request_for(0.25, {{"code", 2}, {"prose", 1}}));
  const std::string text = plan_text(plan);
  EXPECT_NE(text.find("\"domain_weights\": {\n  \"code\": 2.0\n }"), std::string::npos) << text;
  EXPECT_EQ(plan_text(parse_plan(text, "text")), text);
  EXPECT_EQ(parse_plan(text, "text").request.domain_weights, (Numbers{{"code", 2}}));
  for (const char* bad : {"-2.0", "\"2\"", "1e999"}) {
    std::string broken = text;
    broken.replace(broken.find("2.0"), 3, bad);
    expect_error(ExitCode::bad_input, {"my.json"}, [&] { parse_plan(broken, "my.json"); });
  }
}

TEST(DomainWeights, NamesMayBeAnyBytes) {
  SaliencyFile file = code_and_prose();
  file.info.domains[1] = "pr\xffse";
  const std::string text = plan_text(make_plan(file, request_for(0.25, {{"pr\xffse", 2}})));
  EXPECT_EQ(parse_plan(text, "text").domains[0].name, "code");
}

TEST(DomainWeights, RefuseUnknownDomainsAndNothingAtAll) {
  const SaliencyFile file = code_and_prose();
  expect_error(ExitCode::usage, {"--domain-weight", "\"cod\"", "code, prose"}, [&] {
    make_plan(file, request_for(0.25, {{"cod", 2}}));
  });
  expect_error(ExitCode::usage, {"--domain-weight", "\"cod\""}, [&] {
    make_plan(file, request_for(0.25, {{"cod", 1}}));
  });
  expect_error(ExitCode::usage, {"--domain-weight", "every domain"}, [&] {
    make_plan(file, request_for(0.25, {{"code", 0}, {"prose", 0}}));
  });
  expect_error(ExitCode::usage, {"--protect", "\"maths\"", "code, prose"}, [&] {
    make_plan(file, request_for(0.25, {}, {{"maths", 0.1}}));
  });
  expect_error(ExitCode::usage, {"--protect", "below 1"}, [&] {
    make_plan(file, request_for(0.25, {}, {{"code", 1}}));
  });
}

TEST(Protect, KeepsWhoCarriesMuchOfADomain) {
  // Of code's sum of 12 expert 0 carries 8, 1 carries 1, 2 carries 3. Expert 2 has the lowest score.
  const Plan plain = make_plan(code_and_prose(), request_for(0.5, {}));
  EXPECT_EQ(plain.layers[0].keep, (Ids{0, 1}));
  EXPECT_EQ(plan_text(plain).find("protect"), std::string::npos);
  const Plan plan = make_plan(code_and_prose(), request_for(0.5, {}, {{"code", 0.24}}));
  EXPECT_EQ(plan.layers[0].keep, (Ids{0, 2}));
  EXPECT_EQ(plan.layers[0].protected_experts, (Ids{2})) << "expert 0 stays by its score";
  EXPECT_EQ(plan.layers[0].preserved, Ids{});
  EXPECT_EQ(make_plan(code_and_prose(), request_for(0.5, {}, {{"code", 0.25}})).layers[0].keep, (Ids{0, 1}))
      << "a quarter is not more than a quarter";
  const Plan both = make_plan(code_and_prose(), request_for(0.25, {}, {{"code", 0.24}, {"prose", 0.2}}));
  EXPECT_EQ(both.layers[0].keep, (Ids{0, 1, 2})) << "prose: 9 of 14 and 3 of 14 are above a fifth, 2 of 14 is not";
}

TEST(Protect, MarginIsBetweenThoseThatTheirRankDecidedOn) {
  // Scores 1, 2, 3, 4. Experts 0 and 2 carry code; expert 3 is not needed, 1 and then 3 would go in their place.
  const SaliencyFile file = layer_of(
      {"code", "prose"}, {{{1, 1}, {}, {1, 1}, {}}, {{}, {}, {}, {}}, {{}, {2, 1}, {2, 0}, {4, 1}}, {{}, {}, {}, {}}});
  const Plan plan = make_plan(file, request_for(0.5, {}, {{"code", 0.4}}));
  EXPECT_EQ(plan.layers[0].keep, (Ids{0, 2}));
  EXPECT_EQ(plan.layers[0].protected_experts, (Ids{0, 2})) << "both rank below expert 3, which goes";
  EXPECT_EQ(plan.layers[0].margin, 0) << "nobody stays by rank";
  EXPECT_NE(plan_table(plan).find("protected, above this share of a domain: code 0.4"), std::string::npos);
}

TEST(Protect, IsWrittenAndReadBack) {
  const std::string text = plan_text(make_plan(code_and_prose(), request_for(0.5, {}, {{"code", 0.24}})));
  EXPECT_NE(text.find("\"protected\":[2]"), std::string::npos) << text;
  EXPECT_EQ(plan_text(parse_plan(text, "text")), text);
  std::string broken = text;
  broken.replace(broken.find("\"protected\":[2]"), 15, "\"protected\":[1]");
  expect_error(ExitCode::bad_input, {"preserved or protected, but not kept"}, [&] { parse_plan(broken, "text"); });
}

TEST(Protect, RefusesToProtectMoreThanStay) {
  expect_error(ExitCode::usage, {"layer 0", "3 experts", "more than the 2 that stay"}, [] {
    make_plan(code_and_prose(), request_for(0.5, {}, {{"code", 0.01}}));
  });
}

TEST(DomainNumbers, AreParsedByTheLastSeparator) {
  EXPECT_EQ(parse_domain_numbers({"prose=0.5", "a=b=2"}, '=', "w"), (Numbers{{"a=b", 2}, {"prose", 0.5}}));
  EXPECT_EQ(parse_domain_numbers({"code:0.1"}, ':', "p"), (Numbers{{"code", 0.1}}));
  for (const char* text : {"code", "=2", "code=", "code=x", "code=-1", "code=inf", "code=nan", "code=2x", ""}) {
    expect_error(ExitCode::usage, {"--w"}, [&] { parse_domain_numbers({text}, '=', "w"); });
  }
  expect_error(ExitCode::usage, {"--w", "\"code\"", "twice"}, [] {
    parse_domain_numbers({"code=1", "code=2"}, '=', "w");
  });
}

}  // namespace
}  // namespace reap
