#include "driver/evaluation_file.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>

#include "expect_error.hpp"

namespace reap {
namespace {

/// One variant over two domains, the second without tokens.
Evaluation small() {
  PredictionSums sums(2, 4);
  sums.add(0, 0, {.nll = 1, .kl = 0, .overlap = 1, .agrees = true});
  sums.add(0, 1, {.nll = 2, .kl = 0, .overlap = 1, .agrees = true});
  sums.add(1, 0, {.nll = 1.1, .kl = 0.25, .overlap = 0.5, .agrees = true});
  sums.add(1, 1, {.nll = 2.3, .kl = 0.75, .overlap = 0.25, .agrees = false});
  Evaluation e{.model_type = "minimax_m2",
               .model_digest = "aa",
               .heldout_digest = "bb",
               .samples = 2,
               .tokens = 4,
               .compute = "fp32",
               .block_tokens = 4096,
               .numerics = "cpu",
               .domains = {"code", "prose"},
               .base = measures_of(sums, 0)};
  e.variants.push_back({.name = "reap-0.25",
                        .criterion = "reap",
                        .ratio = 0.25,
                        .kept = {24},
                        .plan_digest = "cc",
                        .measures = measures_of(sums, 1)});
  return e;
}

/// Of a sweep over one sample: the other half has no tokens.
Json choice() {
  return {{"name", "auto-0.25"},
          {"chosen", "reap-0.25"},
          {"candidates", Json::array({{{"name", "reap-0.25"}, {"selection", 0.25}, {"report", nullptr}}})}};
}

TEST(EvaluationFile, IsThisText) {
  EXPECT_EQ(evaluation_text(small()), R"({
 "format": "reap-evaluation",
 "version": 1,
 "model": {"type":"minimax_m2","digest":"aa"},
 "heldout": {"digest":"bb","samples":2,"tokens":4},
 "compute": "fp32",
 "block_tokens": 4096,
 "numerics": "cpu",
 "domains": ["code","prose"],
 "calibration": null,
 "base": {"all":{"predicted":2,"nll":1.5,"perplexity":4.4816890703380645},"domains":[{"predicted":2,"nll":1.5,"perplexity":4.4816890703380645},{"predicted":0,"nll":null,"perplexity":null}],"halves":[{"predicted":1,"nll":1.0,"perplexity":2.718281828459045},{"predicted":1,"nll":2.0,"perplexity":7.38905609893065}]},
 "variants": [
  {"name":"reap-0.25","criterion":"reap","ratio":0.25,"kept":24,"plan_digest":"cc","all":{"predicted":2,"nll":1.7,"perplexity":5.4739473917272,"kl":0.5,"top1":0.5,"overlap":0.375},"domains":[{"predicted":2,"nll":1.7,"perplexity":5.4739473917272,"kl":0.5,"top1":0.5,"overlap":0.375},{"predicted":0,"nll":null,"perplexity":null,"kl":null,"top1":null,"overlap":null}],"halves":[{"predicted":1,"nll":1.1,"perplexity":3.0041660239464334,"kl":0.25,"top1":1.0,"overlap":0.5},{"predicted":1,"nll":2.3,"perplexity":9.974182454814718,"kl":0.75,"top1":0.0,"overlap":0.25}]}
 ]
}
)");
}

TEST(EvaluationFile, ComesBackAsItWas) {
  Evaluation e = small();
  EXPECT_EQ(evaluation_text(parse_evaluation(evaluation_text(e), "e")), evaluation_text(e));
  e.variants[0].kept = {24, 25};
  e.variants.push_back(e.variants[0]);
  e.variants[1].plan_digest = "";
  e.variants[1].model_digest = "ee";
  e.calibration_digest = "dd";
  e.choice = Json::array({choice()});
  const Evaluation back = parse_evaluation(evaluation_text(e), "e");
  EXPECT_EQ(evaluation_text(back), evaluation_text(e));
  EXPECT_EQ(back.variants[0].kept, e.variants[0].kept);
  EXPECT_TRUE(same_variants(back, e));
  EXPECT_FALSE(back.variants[0].same_as(back.variants[1]));
  EXPECT_TRUE(std::isnan(back.base.domains[1].nll));
  e.variants.clear();
  EXPECT_EQ(evaluation_text(parse_evaluation(evaluation_text(e), "e")), evaluation_text(e));
}

TEST(EvaluationFile, TellsWhatResultsDependOn) {
  const Evaluation a = small();
  Evaluation b = a;
  b.base.all.nll = 7;
  b.calibration_digest = "dd";
  EXPECT_EQ(difference(a, b), "");
  EXPECT_TRUE(same_variants(a, b));
  const auto differs = [&](auto change) {
    Evaluation other = a;
    change(other);
    return !difference(a, other).empty() || !same_variants(a, other);
  };
  EXPECT_TRUE(differs([](Evaluation& e) { e.model_digest = "x"; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.heldout_digest = "x"; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.samples = 3; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.domains = {"code"}; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.compute = "bf16"; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.block_tokens = 1; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.numerics = "x"; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.variants[0].plan_digest = "x"; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.variants[0].model_digest = "x"; }));
  EXPECT_TRUE(differs([](Evaluation& e) { e.variants.clear(); }));
}

TEST(EvaluationFile, RefusesWhatItIsNot) {
  Evaluation whole = small();
  whole.choice = Json::array({choice()});
  const std::string text = evaluation_text(whole);
  const auto refuse = [&](const std::string& from, const std::string& to, const std::string& why) {
    std::string broken = text;
    const std::size_t at = broken.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    broken.replace(at, from.size(), to);
    expect_error(ExitCode::bad_input, {why}, [&] { parse_evaluation(broken, "e.json"); });
  };
  refuse("reap-evaluation", "reap-plan", "e.json: is not a reap-evaluation of version 1");
  refuse("\"version\": 1", "\"version\": 2", "version 1");
  refuse("\"digest\":\"aa\"", "\"digest\":1", "e.json: model: 'digest'");
  refuse("\"predicted\":2", "\"predicted\":2.5", "'predicted'");
  refuse("[\"code\",\"prose\"]", "[\"code\"]", "2 domains");
  refuse("\"kept\":24", "\"kept\":\"all\"", "variant 0: 'kept'");
  refuse("\"kept\":24", "\"kept\":[]", "variant 0: 'kept'");
  refuse("\"top1\":0.5", "\"top\":0.5", "'top1' is missing");
  refuse("\"variants\": [", "\"variants\": {}, \"rest\": [", "'variants' is not an array");
  refuse("\"chosen\":\"reap-0.25\"", "\"chosen\":null", "choice 0: 'chosen'");
  refuse("\"candidates\":[", "\"candidates\":{}, \"rest\":[", "'candidates' is not an array");
  refuse("\"report\":null", "\"report\":\"none\"", "'report'");
  refuse("\"choice\": [", "\"choice\": {}, \"rest\": [", "'choice' is not an array");
}

TEST(EvaluationFile, TableShowsEveryVariantAndDomain) {
  const std::string table = evaluation_table(small());
  EXPECT_EQ(table, R"(perplexity over 2 predicted tokens of 2 samples

               kept        all       code      prose         KL    top-1  overlap
unpruned        all     4.4817     4.4817          -
reap-0.25        24     5.4739     5.4739          -    0.50000   50.00%   0.3750
)");
}

}  // namespace
}  // namespace reap
