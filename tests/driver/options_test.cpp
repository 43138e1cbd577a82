#include "driver/options.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "driver/commands.hpp"
#include "kernels/error.hpp"

namespace reap {
namespace {

Options parsed(std::vector<const char*> words) {
  words.insert(words.begin(), "reap_dist");
  return parse_command_line(static_cast<int>(words.size()), words.data()).options;
}

std::string text(std::vector<const char*> words) {
  words.insert(words.begin(), "reap_dist");
  return parse_command_line(static_cast<int>(words.size()), words.data()).text;
}

/// The message of the usage error that these words cause.
std::string refusal(const std::vector<const char*>& words) {
  try {
    parsed(words);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    return e.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

/// An ini file that goes away with the test.
class IniFile {
 public:
  explicit IniFile(const std::string& content)
      : path_{(std::filesystem::temp_directory_path() / ("options_test_" + std::to_string(::getpid()) + ".ini"))
                  .string()} {
    std::ofstream(path_) << content;
  }
  ~IniFile() { std::filesystem::remove(path_); }
  const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
};

TEST(Options, RunIsTheDefaultCommand) {
  const Options o = parsed({"--model", "m", "--ratio", "0.25", "0.5"});
  EXPECT_EQ(o.command, "run");
  EXPECT_EQ(o.model, "m");
  EXPECT_EQ(o.ratios, (std::vector<double>{0.25, 0.5}));
  EXPECT_EQ(o.criteria, (std::vector<std::string>{"reap"}));
  EXPECT_EQ(o.compute, Compute::bf16);
  EXPECT_TRUE(o.verify);
}

TEST(Options, ReadsEveryKindOfValue) {
  const Options o = parsed({"plan", "-s", "my saliency.h5", "--criterion", "reap", "frequency", "--keep", "192",
                            "--keep-multiple=8", "--preserve-super-experts", "--seed", "7"});
  EXPECT_EQ(o.command, "plan");
  EXPECT_EQ(o.saliency, "my saliency.h5");
  EXPECT_EQ(o.criteria, (std::vector<std::string>{"reap", "frequency"}));
  EXPECT_EQ(o.plan_request.keep, 192);
  EXPECT_EQ(o.plan_request.keep_multiple, 8);
  EXPECT_TRUE(o.plan_request.preserve_super_experts);
  EXPECT_EQ(o.plan_request.seed, 7U);
}

TEST(Options, CriteriaAndDomainsAreUnderstood) {
  const Options o = parsed({"plan", "--criterion", "reap:.50", "ean_mean", "--domain-weight", "prose=0.5", "code=2",
                            "chat=1", "--protect", "code:0.1"});
  EXPECT_EQ(o.criteria, (std::vector<std::string>{"reap:0.5", "ean_mean"}));
  EXPECT_EQ(o.plan_request.domain_weights, (std::vector<DomainNumber>{{"chat", 1}, {"code", 2}, {"prose", 0.5}}));
  EXPECT_EQ(o.plan_request.protect, (std::vector<DomainNumber>{{"code", 0.1}}));
  EXPECT_NE(refusal({"--criterion", "reap:2"}).find("from 0 to 1"), std::string::npos);
  EXPECT_NE(refusal({"--domain-weight", "code"}).find("--domain-weight"), std::string::npos);
  EXPECT_NE(refusal({"--domain-weight", "code=1e101"}).find("from 0 to 1e+100"), std::string::npos);
  EXPECT_NE(refusal({"--protect", "code=0.1"}).find("--protect"), std::string::npos);
}

TEST(Options, SizesTakeUnits) {
  EXPECT_EQ(parsed({"--max-shard-size", "5GB"}).write.max_shard_bytes, 5'000'000'000);
  EXPECT_EQ(parsed({"--max-shard-size", "1.5MiB"}).write.max_shard_bytes, 1'572'864);
  EXPECT_EQ(parsed({"--memory-budget", "1000"}).memory_budget, 1000);
}

TEST(Options, RefusesWhatCannotBeMeant) {
  EXPECT_NE(refusal({"prun"}).find("unknown command 'prun'"), std::string::npos);
  EXPECT_NE(refusal({"--modle", "m"}).find("modle"), std::string::npos);
  EXPECT_NE(refusal({"--mod", "m"}).find("mod"), std::string::npos) << "abbreviations are not guessed";
  EXPECT_NE(refusal({"--ratio", "1"}).find("below 1"), std::string::npos);
  EXPECT_NE(refusal({"--ratio", "nan"}).find("below 1"), std::string::npos);
  EXPECT_NE(refusal({"--ratio", "-0.1"}).find("ratio"), std::string::npos);
  EXPECT_NE(refusal({"--ratio", "0.2", "--keep", "8"}).find("exclude"), std::string::npos);
  EXPECT_NE(refusal({"--criterion", "best"}).find("reap"), std::string::npos);
  EXPECT_NE(refusal({"--compute", "fp16"}).find("bf16, fp32"), std::string::npos);
  EXPECT_NE(refusal({"--block-tokens", "0"}).find("at least 1"), std::string::npos);
  EXPECT_NE(refusal({"--max-shard-size", "5 potatoes"}).find("not a size"), std::string::npos);
  EXPECT_NE(refusal({"--pp", "-1"}).find("pp"), std::string::npos);
  EXPECT_NE(refusal({"prune", "--ratio", "0.5"}).find("--ratio is no option of prune"), std::string::npos);
  EXPECT_NE(refusal({"run", "--plan", "p"}).find("--plan is no option of run"), std::string::npos);
  EXPECT_NE(refusal({"run", "stray"}).find("stray"), std::string::npos);
  EXPECT_NE(refusal({"--config", "/nonexistent.ini"}).find("cannot be opened"), std::string::npos);
}

TEST(Options, MergeTakesFilesToAddAndToSubtract) {
  using Paths = std::vector<std::filesystem::path>;
  const Options o = parsed({"merge", "--saliency", "out.h5", "a.h5", "b c.h5", "--subtract", "d.h5", "e.h5"});
  EXPECT_EQ(o.saliency, "out.h5");
  EXPECT_EQ(o.paths, (Paths{"a.h5", "b c.h5"}));
  EXPECT_EQ(o.subtract, (Paths{"d.h5", "e.h5"}));
  EXPECT_NE(refusal({"plan", "a.h5"}).find("unexpected word"), std::string::npos);
}

TEST(Options, PartIsAShareOfShares) {
  const Options o = parsed({"observe", "--part", "2/8"});
  EXPECT_EQ(o.part.index, 2);
  EXPECT_EQ(o.part.count, 8);
  EXPECT_EQ(parsed({"observe"}).part.count, 1);
  for (const char* text : {"0/8", "9/8", "2", "2/", "/8", "2/8x", "a/8", "-1/8", "2/0", "1/99999999999999999999", ""}) {
    EXPECT_NE(refusal({"observe", "--part", text}).find("--part"), std::string::npos) << text;
  }
  EXPECT_NE(refusal({"run", "--part", "1/2"}).find("no option of run"), std::string::npos);
}

TEST(Options, CommandLineWinsOverIniFile) {
  const IniFile ini("model = from-ini\nratio = 0.1\nratio = 0.2\nblock-tokens = 512\npreserve-super-experts = true\n");
  const Options o = parsed({"run", "--config", ini.path(), "--model", "from line"});
  EXPECT_EQ(o.model, "from line");
  EXPECT_EQ(o.ratios, (std::vector<double>{0.1, 0.2}));
  EXPECT_EQ(o.block_tokens, 512);
  EXPECT_TRUE(o.plan_request.preserve_super_experts);
}

TEST(Options, IniFileWithUnknownNameIsRefused) {
  const IniFile ini("modle = x\n");
  EXPECT_NE(refusal({"--config", ini.path()}).find("modle"), std::string::npos);
}

TEST(Options, EffectiveOptionsHoldDefaultsAndChoices) {
  const Options o = parsed({"--ratio", "0.25", "--ep", "2"});
  const auto value = [&](const std::string& name) {
    for (const auto& [key, text_value] : o.effective) {
      if (key == name) return text_value;
    }
    return std::string("absent");
  };
  EXPECT_EQ(value("ratio"), "0.25");
  EXPECT_EQ(value("ep"), "2");
  EXPECT_EQ(value("criterion"), "reap");
  EXPECT_EQ(value("block-tokens"), "4096");
  EXPECT_EQ(value("model"), "absent");
}

TEST(Options, HelpNamesEveryCommandAndExplainsEach) {
  for (const Command& command : commands()) {
    EXPECT_NE(text({"--help"}).find(command.name), std::string::npos);
    const std::string own = text({std::string(command.name).c_str(), "--help"});
    EXPECT_NE(own.find(command.details), std::string::npos);
  }
  EXPECT_NE(text({"--version"}).find("reap_dist 0."), std::string::npos);
}

}  // namespace
}  // namespace reap
