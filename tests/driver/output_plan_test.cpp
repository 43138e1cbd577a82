#include "driver/output_plan.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>
#include <string>

#include "driver/expect_error.hpp"
#include "driver/pruned_models.hpp"

namespace reap {
namespace {

/// The lines of `text`.
std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) result.push_back(line);
  return result;
}

/// Lines of `after` that are not at the same place in `before`.
std::vector<std::string> changed_lines(const std::string& before, const std::string& after) {
  const std::vector<std::string> a = lines(before);
  const std::vector<std::string> b = lines(after);
  EXPECT_EQ(a.size(), b.size());
  std::vector<std::string> changed;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i] != b[i]) changed.push_back(b[i]);
  }
  return changed;
}

/// Source tensors by the name they get.
std::map<std::string, std::string> sources(const OpenSource& source, const std::vector<OutputFile>& files) {
  std::map<std::string, std::string> names;
  for (const OutputFile& file : files) {
    for (const OutputTensor& tensor : file.tensors) {
      const auto [entry, is_new] = names.emplace(tensor.info.name, source.checkpoint.tensors()[tensor.source].name);
      EXPECT_TRUE(is_new) << tensor.info.name;
    }
  }
  return names;
}

class OutputPlan : public testing::Test {
 protected:
  std::vector<OutputFile> plan(std::int64_t kept, const WriteOptions& options = {}) const {
    return plan_output(source_.checkpoint, source_.model, source_.claims, shuffled_plan(source_, kept), options);
  }

  OpenSource source_{test_model("m2-mini-fp8")};  // 2 layers of 6 experts, 1 MTP layer
};

TEST_F(OutputPlan, RenumbersTheExpertsThatStay) {
  const Plan keep = shuffled_plan(source_, 4);
  const std::map<std::string, std::string> names = sources(source_, plan(4));
  std::size_t of_experts = 0;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (std::size_t expert = 0; expert < 4; ++expert) {
      for (const char* part : {"w1.weight", "w2.weight", "w3.weight", "w1.weight_scale_inv", "w2.weight_scale_inv",
                               "w3.weight_scale_inv"}) {
        const auto name = [&](std::size_t e) {
          return fmt::format("model.layers.{}.block_sparse_moe.experts.{}.{}", layer, e, part);
        };
        ASSERT_TRUE(names.contains(name(expert))) << name(expert);
        EXPECT_EQ(names.at(name(expert)), name(static_cast<std::size_t>(keep.layers[layer].keep[expert])));
        ++of_experts;
      }
    }
  }
  for (const auto& [name, from] : names) {
    if (name.find(".experts.") == std::string::npos) {
      EXPECT_EQ(name, from);
      EXPECT_EQ(name.find("model.layers.2."), std::string::npos) << name << " is of the MTP module";
    } else {
      --of_experts;
    }
  }
  EXPECT_EQ(of_experts, 0u);
}

TEST_F(OutputPlan, SlicesGateAndBiasOnly) {
  const Plan keep = shuffled_plan(source_, 4);
  for (const OutputFile& file : plan(4)) {
    for (const OutputTensor& tensor : file.tensors) {
      const Tensor& from = source_.checkpoint.tensors()[tensor.source];
      const bool router = tensor.info.name.find("gate.weight") != std::string::npos ||
                          tensor.info.name.find("e_score_correction_bias") != std::string::npos;
      EXPECT_EQ(tensor.info.dtype, from.dtype);
      if (!router) {
        EXPECT_TRUE(tensor.rows.empty()) << tensor.info.name;
        EXPECT_EQ(tensor.info.shape, from.shape) << tensor.info.name;
        EXPECT_EQ(tensor.info.bytes, from.bytes) << tensor.info.name;
        continue;
      }
      EXPECT_EQ(tensor.rows, keep.layers[tensor.info.name.find("layers.0.") == std::string::npos ? 1 : 0].keep);
      EXPECT_EQ(tensor.info.shape[0], 4);
      EXPECT_EQ(tensor.info.bytes, from.bytes / 6 * 4);
    }
  }
}

TEST_F(OutputPlan, FilesAreFilledInTheOrderOfTheSource) {
  WriteOptions options;
  options.max_shard_bytes = 100'000;
  const std::vector<OutputFile> files = plan(4, options);
  ASSERT_GT(files.size(), 3u);
  std::int64_t last_of_file = -1;
  for (std::size_t f = 0; f < files.size(); ++f) {
    EXPECT_EQ(files[f].name, fmt::format("model-{:05}-of-{:05}.safetensors", f + 1, files.size()));
    std::uint64_t data = 0;
    std::int64_t lowest = std::numeric_limits<std::int64_t>::max(), highest = -1;
    for (const OutputTensor& tensor : files[f].tensors) {
      data += tensor.info.bytes;
      lowest = std::min(lowest, tensor.source);
      highest = std::max(highest, tensor.source);
    }
    EXPECT_TRUE(data <= 100'000 || files[f].tensors.size() == 1) << data;
    EXPECT_GT(lowest, last_of_file);
    last_of_file = highest;
  }
}

TEST_F(OutputPlan, EveryTensorIsAlignedAndTheyTileTheFile) {
  for (const OutputFile& file : plan(5)) {
    std::uint64_t at = header_text(file).size();
    for (const OutputTensor& tensor : file.tensors) {
      EXPECT_EQ(tensor.info.offset, at);
      EXPECT_EQ(tensor.info.offset % size_of(tensor.info.dtype), 0u) << tensor.info.name;
      at += tensor.info.bytes;
    }
    EXPECT_EQ(file.bytes, at);
  }
}

TEST_F(OutputPlan, ATensorLargerThanAFileGetsOneOfItsOwn) {
  WriteOptions options;
  options.max_shard_bytes = 1;
  const std::vector<OutputFile> files = plan(2, options);
  for (const OutputFile& file : files) EXPECT_EQ(file.tensors.size(), 1u);
  EXPECT_GT(files.size(), 40u);
}

TEST_F(OutputPlan, NothingDroppedIsNothingChanged) {
  const Plan all = shuffled_plan(source_, 6);
  WriteOptions options;
  options.mtp = Mtp::keep;
  const std::vector<OutputFile> files = plan_output(source_.checkpoint, source_.model, source_.claims, all, options);
  const std::map<std::string, std::string> names = sources(source_, files);
  EXPECT_EQ(names.size(), source_.checkpoint.tensors().size());
  for (const auto& [name, from] : names) EXPECT_EQ(name, from);
  for (const OutputFile& file : files) {
    for (const OutputTensor& tensor : file.tensors) EXPECT_TRUE(tensor.rows.empty());
  }
  EXPECT_EQ(pruned_config(source_.checkpoint, source_.model, all, options), source_.checkpoint.config_text());
}

TEST_F(OutputPlan, ConfigChangesOnlyWhatItMust) {
  const std::string& before = source_.checkpoint.config_text();
  const Plan four = shuffled_plan(source_, 4);
  WriteOptions options;
  EXPECT_EQ(
      changed_lines(before, pruned_config(source_.checkpoint, source_.model, four, options)),
      (std::vector<std::string>{" \"num_local_experts\": 4,", " \"num_mtp_modules\": 0,", " \"use_mtp\": false,"}));
  options.mtp = Mtp::keep;
  EXPECT_EQ(changed_lines(before, pruned_config(source_.checkpoint, source_.model, four, options)),
            (std::vector<std::string>{" \"num_local_experts\": 4,"}));
}

TEST(OutputPlanWithoutMtp, ConfigKeepsTheMtpKeysWhenThereWereNoTensors) {
  const OpenSource source(
      test_model("m2-nano-fp8"));  // says num_mtp_modules 3 and holds none, as the real release does
  const std::string& before = source.checkpoint.config_text();
  EXPECT_EQ(changed_lines(before, pruned_config(source.checkpoint, source.model, shuffled_plan(source, 24), {})),
            (std::vector<std::string>{" \"num_local_experts\": 24,"}));
}

TEST_F(OutputPlan, IndexIsSortedAndAddsUp) {
  const std::vector<OutputFile> files = plan(4);
  const Json index = parse_json(index_text(files), "index");
  std::uint64_t bytes = 0;
  for (const OutputFile& file : files) {
    for (const OutputTensor& tensor : file.tensors) {
      bytes += tensor.info.bytes;
      EXPECT_EQ(index["weight_map"][tensor.info.name], file.name);
    }
  }
  EXPECT_EQ(index["metadata"]["total_size"], bytes);
  std::string previous;
  for (const auto& [name, file] : index["weight_map"].items()) {
    EXPECT_LT(previous, name);
    previous = name;
  }
}

TEST_F(OutputPlan, PlansThatDoNotFitAreRefused) {
  const auto refuse = [&](const std::vector<std::string>& words, auto&& spoil) {
    Plan plan = shuffled_plan(source_, 4);
    spoil(plan);
    expect_error(ExitCode::bad_input, words,
                 [&] { plan_output(source_.checkpoint, source_.model, source_.claims, plan, {}); });
  };
  refuse({"1 layers of 6", "2 of 6"}, [](Plan& plan) { plan.layers.pop_back(); });
  refuse({"2 layers of 8", "2 of 6"}, [](Plan& plan) { plan.experts = 8; });
  refuse({"keeps 1 experts", "needs 2"}, [](Plan& plan) { plan.kept = 1; });
  refuse({"keeps 7 experts"}, [](Plan& plan) { plan.kept = 7; });
  refuse({"layer 1"}, [](Plan& plan) { plan.layers[1].keep.pop_back(); });
  refuse({"layer 1"}, [](Plan& plan) { plan.layers[1].keep = {0, 1, 2, 6}; });
  refuse({"layer 1"}, [](Plan& plan) { plan.layers[1].keep = {-1, 1, 2, 3}; });
  refuse({"layer 0"}, [](Plan& plan) { plan.layers[0].keep = {0, 2, 2, 3}; });
  refuse({"layer 0"}, [](Plan& plan) { plan.layers[0].keep = {0, 3, 2, 4}; });
}

TEST_F(OutputPlan, AShardSizeOfNothingIsRefused) {
  WriteOptions options;
  options.max_shard_bytes = 0;
  expect_error(ExitCode::usage, {"--max-shard-size"}, [&] { plan(4, options); });
}

}  // namespace
}  // namespace reap
