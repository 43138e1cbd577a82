#include "driver/model_card.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "driver/expect_error.hpp"
#include "driver/manifest.hpp"
#include "driver/pruned_models.hpp"
#include "driver/verify.hpp"
#include "driver/write_checkpoint.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const std::string kBaseCard =
    "---\nlanguage: en\nlicense: other\nlicense_name: modified-mit\nlicense_link: LICENSE-MODEL\n"
    "tags:\n- chat\n---\n# The base model\nlicense: not this line\n";

/// A small model with a card and licence of its own, and what pruning makes of it.
class ModelCard : public testing::Test {
 protected:
  ModelCard() {
    fs::copy(test_model("m2-mini-fp8"), source_);
    write_text(source_ / "README.md", kBaseCard);
    write_text(source_ / "LICENSE-MODEL", "do what you like");
    write_text(source_ / "notice.txt", "notice");
  }

  static Plan plan_of(const OpenSource& source, std::int64_t kept) {
    Plan plan = shuffled_plan(source, kept);
    plan.samples = 64;
    plan.tokens = 32768;
    plan.domains = {{"code", 32000}, {"a|b\n<i>", 768}};
    plan.request.criterion = "reap:0.5";
    plan.request.domain_weights = {{"code", 2}};
    plan.request.protect = {{"code", 0.1}};
    return plan;
  }

  void prune(const fs::path& from, const fs::path& to, std::int64_t kept, const std::string& evaluation = "") const {
    const OpenSource source(from);
    WriteOptions options;
    options.evaluation = evaluation;
    all_write_checkpoint(world_, source.checkpoint, source.model, plan_of(source, kept), to, options);
  }

  Comm world_{MPI_COMM_SELF};
  TemporaryDirectory directory_;
  fs::path source_ = directory_ / "source";
  fs::path output_ = directory_ / "output";
};

void expect_holds(const std::string& text, const std::vector<std::string>& words) {
  for (const std::string& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " is not in\n" << text;
}

TEST_F(ModelCard, TellsTheFactsOfTheRun) {
  prune(source_, output_, 4, "| variant | perplexity |\n|---|---|\n| reap_0.5-0.25 | 9.1 |");
  const std::string card = read_text(output_ / "README.md");
  expect_holds(card, {"# minimax\\_m2, 4 of 6 experts", "| routed experts in each of 2 layers | 6 | 4 |",
                      "| experts per token | 2 | 2 |", model_digest(Checkpoint(source_)), "MiniMaxM2ForCausalLM",
                      "[README.base.md](README.base.md)", "Criterion: reap:0.5, sum g\\|f\\| / count^ALPHA",
                      "a share of 0.25 dropped", "0123456789abcdef0123456789abcdef", "64 samples, 32768 tokens",
                      "| code | 32000 | 2 |", "| a\\|b?\\<i\\> | 768 | 1 |", "share of a domain: code 0.1",
                      "## Evaluation\n| variant | perplexity |", "| reap_0.5-0.25 | 9.1 |\n\n## Serving",
                      "vllm serve .", "LICENSE-MODEL, notice.txt"});
  EXPECT_EQ(card.find(directory_ / ""), std::string::npos) << "no path";
  EXPECT_TRUE(is_model_card(card));
  EXPECT_FALSE(is_model_card(kBaseCard));
}

TEST_F(ModelCard, CarriesTheLicenceInTheFrontMatter) {
  prune(source_, output_, 4);
  const std::string front =
      "---\nlicense: other\nlicense_name: modified-mit\nlicense_link: LICENSE-MODEL\ntags:\n- moe\n- pruned\n- "
      "reap\n---\n";
  EXPECT_TRUE(read_text(output_ / "README.md").starts_with(front)) << read_text(output_ / "README.md");
  EXPECT_EQ(read_text(output_ / "LICENSE-MODEL"), "do what you like");
  EXPECT_EQ(read_text(output_ / "README.md").find("## Evaluation"), std::string::npos);
}

TEST_F(ModelCard, LicencesMayBeListsAndFrontMatterMayBeNone) {
  const auto front_of = [&](const std::string& base, const std::string& name) {
    write_text(source_ / "README.md", base);
    prune(source_, directory_ / name, 4);
    const std::string card = read_text(directory_ / name / "README.md");
    return card.substr(4, card.find("tags:") - 4);
  };
  EXPECT_EQ(front_of("---\r\nlicense:\r\n- mit\r\n- gpl\r\nx: 1\r\n---\r\n", "a"), "license:\n- mit\n- gpl\n");
  EXPECT_EQ(front_of("# no front matter\nlicense: mit\n", "b"), "");
  EXPECT_EQ(front_of("---\nlicense: mit\n", "c"), "") << "never closed";
  EXPECT_EQ(front_of("", "d"), "");
}

TEST_F(ModelCard, TheSourcesOwnCardIsKeptBesideIt) {
  prune(source_, output_, 4);
  EXPECT_EQ(read_text(output_ / "README.base.md"), kBaseCard);
  write_text(source_ / "README.base.md", "another");
  prune(source_, directory_ / "second", 4);
  EXPECT_EQ(read_text(directory_ / "second" / "README.base.md"), "another");
  EXPECT_EQ(read_text(directory_ / "second" / "README.base-2.md"), kBaseCard);
}

TEST_F(ModelCard, OfAPrunedModelIsNotInherited) {
  prune(source_, output_, 5);
  prune(output_, directory_ / "twice", 4);
  const auto files = read_directory(directory_ / "twice");
  EXPECT_EQ(files.at("README.base.md"), kBaseCard);
  EXPECT_FALSE(files.contains("README.base-2.md"));
  expect_holds(files.at("README.md"), {"license_name: modified-mit", "| 5 | 4 |", model_digest(Checkpoint(output_))});
  EXPECT_EQ(files.at("README.md").find("[README.base.md]"), std::string::npos) << "that is not the card of this source";
  all_verify(world_, output_, directory_ / "twice", {});
}

TEST_F(ModelCard, IsListedAndProved) {
  prune(source_, output_, 4);
  std::vector<std::string> names;
  for (const ManifestSideFile& file : read_manifest(output_).side_files) names.push_back(file.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"config.json", "model.safetensors.index.json", "README.md", "LICENSE-MODEL",
                                      "README.base.md", "generation_config.json", "notice.txt"}));
  EXPECT_EQ(all_verify(world_, source_, output_, {}).experts, 4);
  const std::string card = read_text(output_ / "README.md");
  write_text(output_ / "README.md", card + "!");
  expect_error(ExitCode::bad_input, {"README.md", "sha-256"}, [&] { all_verify(world_, source_, output_, {}); });
  write_text(output_ / "README.md", card);
  write_text(output_ / "README.base.md", "altered");
  expect_error(ExitCode::bad_input, {"README.base.md", "the source's"},
               [&] { all_verify(world_, source_, output_, {}); });
}

TEST_F(ModelCard, SameInputsGiveTheSameBytes) {
  prune(source_, output_, 4);
  prune(source_, directory_ / "elsewhere", 4);
  EXPECT_EQ(read_text(output_ / "README.md"), read_text(directory_ / "elsewhere" / "README.md"));
}

}  // namespace
}  // namespace reap
