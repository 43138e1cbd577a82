// Importance of inputs from a saliency file: of the model that was observed, and of one that was pruned from it.
#include "driver/saliency_importance.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "driver/expect_error.hpp"
#include "driver/input_sums.hpp"
#include "driver/pruned_models.hpp"
#include "driver/starved_experts.hpp"
#include "driver/write_checkpoint.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLayers = 2, kExperts = 6, kTopK = 2, kTokens = 60;
/// Of each expert, by group; together 120 slots in each layer.
constexpr std::int64_t kCounts[kLayers][kExperts] = {{30, 31, 29, 0, 1, 29}, {10, 20, 30, 40, 15, 5}};

class SaliencyImportanceTest : public testing::Test {
 protected:
  SaliencyImportanceTest() : source_{all_open_source(self_, test_model("m2-mini-fp8"))} {
    const Model& model = source_.model;
    table_ = Saliency(2, kLayers, kExperts);
    for (std::int64_t l = 0; l < kLayers; ++l) {
      for (std::int64_t e = 0; e < kExperts; ++e) {
        table_.count(0, l, e) = kCounts[l][e] / 2;
        table_.count(1, l, e) = kCounts[l][e] - kCounts[l][e] / 2;
      }
    }
    add_input_sums(table_, 3,
                   {model.hidden, model.attention.heads * model.attention.head_dim, model.hidden, model.expert.inner});
    info_ = {"minimax_m2", source_.digest, std::string(32, 'b'), "fp32", "cpu test", 4096, 3, kTokens, kTopK, {"all"}};
  }

  fs::path write() const {
    write_saliency(directory_ / "s.h5", info_, table_);
    return directory_ / "s.h5";
  }

  std::vector<float> expected(InputKind kind, std::int64_t layer, std::int64_t expert) const {
    const Imatrix::Table& table = table_.imatrix.at(kind);
    const auto size = static_cast<std::size_t>(kSquareDigits * table.width);
    const std::int64_t at = is_per_expert(kind) ? layer * kExperts + expert : layer;
    const auto row = std::span(table.sums).subspan(static_cast<std::size_t>(at) * size, size);
    std::vector<float> sums;
    for (std::int64_t i = 0; i < table.width; ++i) sums.push_back(static_cast<float>(square_sum(row, i)));
    return sums;
  }

  /// The model with four experts a layer.
  Plan prune() const {
    const OpenSource source(source_.checkpoint.directory());
    const Plan plan = shuffled_plan(source, 4);
    all_write_checkpoint(self_, source.checkpoint, source.model, plan, directory_ / "pruned", {});
    return plan;
  }

  static std::string expert(std::int64_t layer, std::int64_t number, const char* part) {
    return fmt::format("model.layers.{}.block_sparse_moe.experts.{}.{}.weight", layer, number, part);
  }

  Comm self_{MPI_COMM_SELF};
  TemporaryDirectory directory_;
  Source source_;
  Saliency table_;
  SaliencyInfo info_;
};

TEST_F(SaliencyImportanceTest, HoldsTheSumsOfEachWeight) {
  const SaliencyImportance importance(write(), source_, 1);
  const Model& model = source_.model;
  for (std::int64_t l = 0; l < kLayers; ++l) {
    const std::string layer = fmt::format("model.layers.{}.self_attn.", l);
    for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
      EXPECT_EQ(importance.of(layer + part + ".weight", model.hidden), expected(InputKind::attention, l, 0));
    }
    EXPECT_EQ(importance.of(layer + "o_proj.weight", model.attention.heads * model.attention.head_dim),
              expected(InputKind::output, l, 0));
    for (std::int64_t e = 0; e < kExperts; ++e) {
      const bool seen = kCounts[l][e] > 0;
      for (const auto& [part, kind, width] :
           {std::tuple("w1", InputKind::experts, model.hidden), std::tuple("w3", InputKind::experts, model.hidden),
            std::tuple("w2", InputKind::inner, model.expert.inner)}) {
        const auto sums = importance.of(expert(l, e, part), width);
        EXPECT_EQ(sums, seen ? std::optional(expected(kind, l, e)) : std::nullopt) << l << " " << e << " " << part;
      }
    }
  }
  EXPECT_EQ(importance.of("model.norm.weight", 3), std::nullopt);
  EXPECT_EQ(importance.digest(), sha256_of(read_text(directory_ / "s.h5")));
  expect_error(ExitCode::bad_input, {"/imatrix/inner", "expected"}, [&] { importance.of(expert(0, 0, "w2"), 7); });
}

TEST_F(SaliencyImportanceTest, ExpertsOfFewTokensHaveNone) {
  const SaliencyImportance importance(write(), source_, 30);
  EXPECT_EQ(importance.starved(0), (std::vector<std::int32_t>{2, 3, 4, 5}));
  EXPECT_EQ(importance.starved(1), (std::vector<std::int32_t>{0, 1, 4, 5}));
  EXPECT_EQ(importance.of(expert(0, 2, "w1"), source_.model.hidden), std::nullopt);
  EXPECT_NE(importance.of(expert(0, 0, "w1"), source_.model.hidden), std::nullopt);
}

TEST_F(SaliencyImportanceTest, ServesTheModelThatWasPrunedFromIt) {
  const Plan plan = prune();
  const Source pruned = all_open_source(self_, directory_ / "pruned");
  const SaliencyImportance importance(write(), pruned, 20);
  for (std::int64_t l = 0; l < kLayers; ++l) {
    std::vector<std::int32_t> starved;
    for (std::int32_t e = 0; e < 4; ++e) {
      const std::int32_t original = plan.layers[static_cast<std::size_t>(l)].keep[static_cast<std::size_t>(e)];
      const bool seen = kCounts[l][original] >= 20;
      EXPECT_EQ(importance.of(expert(l, e, "w2"), source_.model.expert.inner),
                seen ? std::optional(expected(InputKind::inner, l, original)) : std::nullopt);
      if (!seen) starved.push_back(e);
    }
    EXPECT_EQ(importance.starved(l), starved);
  }
  EXPECT_EQ(importance.of(expert(0, 4, "w2"), source_.model.expert.inner), std::nullopt);
}

TEST_F(SaliencyImportanceTest, RefusesOtherModels) {
  info_.model_digest = std::string(64, 'f');
  expect_error(ExitCode::bad_input, {"s.h5", "another model", std::string(64, 'f'), "reap_manifest.json"},
               [&] { open_importance(write(), source_, 1); });
  prune();
  const Source pruned = all_open_source(self_, directory_ / "pruned");
  expect_error(ExitCode::bad_input, {"s.h5", "another model", std::string(64, 'f'), source_.digest},
               [&] { open_importance(write(), pruned, 1); });
  info_.model_digest = source_.digest;
  const fs::path manifest = directory_ / "pruned/reap_manifest.json";
  std::string text = read_text(manifest);
  const std::size_t at = text.find(pruned.digest);
  ASSERT_NE(at, std::string::npos);
  text[at] = text[at] == '0' ? '1' : '0';
  write_text(manifest, text);
  expect_error(ExitCode::bad_input, {"pruned", "reap_manifest.json is of another model"},
               [&] { open_importance(write(), pruned, 1); });
}

TEST_F(SaliencyImportanceTest, OfWhatAPlanLeftServesThatPlanAlone) {
  const Plan plan = prune();
  const Source pruned = all_open_source(self_, directory_ / "pruned");
  Plan other = plan;
  other.request.seed = 5;
  info_.plan_digest = sha256_of(plan_text(plan));
  open_importance(write(), source_, 1)->check_plan(plan);
  open_importance(write(), pruned, 1)->check_plan(other);  // whatever is made of it: it is what that plan left
  expect_error(ExitCode::bad_input, {"s.h5", "another plan", info_.plan_digest},
               [&] { open_importance(write(), source_, 1)->check_plan(other); });
  info_.plan_digest = sha256_of(plan_text(other));
  expect_error(ExitCode::bad_input, {"s.h5", "another plan", info_.plan_digest},
               [&] { open_importance(write(), pruned, 1)->check_plan(plan); });
}

TEST_F(SaliencyImportanceTest, RefusesImpossibleFiles) {
  table_.imatrix.at(InputKind::attention).sums[0] = -1;
  expect_error(ExitCode::bad_input, {"/imatrix/attention", "layer 0", "canonical"}, [&] {
    open_importance(write(), source_, 1)->of("model.layers.0.self_attn.q_proj.weight", source_.model.hidden);
  });
  table_.count(1, 1, 2) = kTokens + 1;
  expect_error(ExitCode::bad_input, {"/fields/count", "61"}, [&] { open_importance(write(), source_, 1); });
  table_.imatrix = {};
  expect_error(ExitCode::bad_input, {"--collect imatrix"}, [&] { open_importance(write(), source_, 1); });
  table_ = Saliency(2, kLayers, kExperts + 1);
  add_input_sums(table_, 1);
  expect_error(ExitCode::bad_input, {"2 layers of 7 experts, the model 2 of 6"},
               [&] { open_importance(write(), source_, 1); });
  expect_error(ExitCode::bad_input, {"calib_64x512.h5", "reap-calibration-1", "reap-imatrix-1", "reap-saliency-1"},
               [&] { open_importance(fs::path(REAP_TEST_DATA) / "calib_64x512.h5", source_, 1); });
}

TEST_F(SaliencyImportanceTest, NamesStarvedSurvivorsThatAreSearchedFor) {
  const SaliencyImportance importance(write(), source_, 30);
  const Plan plan = shuffled_plan(OpenSource(source_.checkpoint.directory()), 4);
  QuantizeOptions options;
  options.method = W4Method::opt_rtn;
  const StarvedExperts found = starved_experts(importance, options, source_, plan);
  for (std::size_t l = 0; l < 2; ++l) {
    for (const std::int32_t e : importance.starved(static_cast<std::int64_t>(l))) {
      EXPECT_EQ(std::ranges::count(found[l], e), std::ranges::count(plan.layers[l].keep, e)) << l << " " << e;
    }
  }
  EXPECT_GT(count_of(found), 0);
  options.exclude = {"*.layers.0.*.experts.*"};
  EXPECT_TRUE(starved_experts(importance, options, source_, plan)[0].empty());
  options.method = W4Method::automatic;  // which rounds experts without a search
  EXPECT_EQ(count_of(starved_experts(importance, options, source_, plan)), 0);
}

TEST(StarvedExperts, AreSummarised) {
  StarvedExperts experts(12);
  EXPECT_TRUE(starved_lines(experts, 48, 32).empty());
  experts[3] = {7};
  experts[5] = {1, 2};
  EXPECT_EQ(starved_lines(experts, 48, 32),
            (std::vector<std::string>{"3 of 48 experts saw fewer than 32 tokens: their inputs count alike",
                                      "  layer 3: expert 7", "  layer 5: experts 1, 2"}));
  for (std::vector<std::int32_t>& layer : experts) layer.assign(20, 4);
  const std::vector<std::string> lines = starved_lines(experts, 480, 32);
  ASSERT_EQ(lines.size(), 10U);
  EXPECT_TRUE(lines[1].ends_with("4, 4 and 4 more")) << lines[1];
  EXPECT_EQ(lines.back(), "  and in 4 more layers");
}

}  // namespace
}  // namespace reap
