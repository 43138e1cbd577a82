// prune --form substitution: constants in the place of dropped experts, everything else as it was.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "driver/expect_error.hpp"
#include "driver/finished_output.hpp"
#include "driver/manifest.hpp"
#include "driver/mean_outputs.hpp"
#include "driver/pruned_models.hpp"
#include "driver/verify.hpp"
#include "driver/write_checkpoint.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

std::string expert(std::size_t layer, std::int32_t number, const std::string& part) {
  return fmt::format("model.layers.{}.block_sparse_moe.experts.{}.{}", layer, number, part);
}

/// Sums whose means are easy to name: of expert e in layer l, element i, after c slots: (l + 1) (e - 2) + i / 8.
SaliencyFile measured(const OpenSource& source, const Plan& plan) {
  SaliencyFile file;
  file.info.model_digest = plan.model_digest;
  file.info.calibration_digest = plan.calibration_digest;
  file.info.top_k = plan.top_k;
  file.saliency = Saliency(2, source.model.layers, plan.experts);
  file.saliency.hidden = source.model.hidden;
  for (std::int64_t l = 0; l < source.model.layers; ++l) {
    for (std::int64_t e = 0; e < plan.experts; ++e) {
      file.saliency.count(0, l, e) = e == 0 ? 0 : 3;  // no token has chosen expert 0
      file.saliency.count(1, l, e) = e == 0 ? 0 : e;
      for (std::int64_t i = 0; i < source.model.hidden; ++i) {
        const double mean = static_cast<double>((l + 1) * (e - 2)) + static_cast<double>(i) / 8;
        const double sum = e == 0 ? 0 : mean * static_cast<double>(3 + e);
        file.saliency.outputs.push_back(std::llrint(std::ldexp(sum, kOutputFractionBits)));
      }
    }
  }
  return file;
}

class Substitution : public testing::Test {
 protected:
  Substitution()
      : source_{test_model("m2-mini-bf16")}, plan_{shuffled_plan(source_, source_.model.router.experts - 2)} {
    plan_.request.criterion = "gram";
    plan_.request.allocation = Allocation::global;
    plan_.layers[0].keep = {1, 2, 4, 5};  // unequal: the others keep as many as they did
    plan_.layers[0].keep.resize(std::max<std::size_t>(4, static_cast<std::size_t>(plan_.top_k)));
    options_.max_shard_bytes = 200'000;
    options_.form = Form::substitution;
    options_.mtp = Mtp::keep;
    options_.means = std::make_shared<const MeanOutputs>(mean_outputs(measured(source_, plan_)));
  }

  void write() { all_write_checkpoint(world_, source_.checkpoint, source_.model, plan_, output_, options_); }
  void verify(const MeanOutputs* means) {
    all_verify(world_, source_.checkpoint.directory(), output_, {}, nullptr, means);
  }
  bool keeps(std::size_t layer, std::int32_t e) const {
    return std::ranges::binary_search(plan_.layers[layer].keep, e);
  }

  Comm world_{MPI_COMM_WORLD};
  SharedDirectory directory_{world_};
  OpenSource source_;
  Plan plan_;
  WriteOptions options_;
  std::filesystem::path output_ = directory_ / "output";
};

TEST_F(Substitution, HasConstantsForDroppedExpertsAndAllElseAsItWas) {
  write();
  const StoredTensors before = read_all_tensors(source_.checkpoint.directory());
  StoredTensors after = read_all_tensors(output_);
  for (const auto& [name, tensor] : before) {
    bool gone = false;
    for (std::size_t l = 0; l < plan_.layers.size(); ++l) {
      for (std::int32_t e = 0; e < plan_.experts; ++e)
        gone = gone || (!keeps(l, e) && name.starts_with(expert(l, e, "w")));
    }
    if (gone) continue;
    EXPECT_TRUE(after.contains(name) && after[name] == tensor) << name;
    after.erase(name);
  }
  for (std::size_t l = 0; l < plan_.layers.size(); ++l) {
    for (std::int32_t e = 0; e < plan_.experts; ++e) {
      if (keeps(l, e)) continue;
      const StoredTensor& constant = after[expert(l, e, "approx_value")];
      EXPECT_EQ(constant.dtype, "BF16");
      EXPECT_EQ(constant.shape, (std::vector<std::int64_t>{source_.model.hidden}));
      std::vector<bf16> values(constant.bytes.size() / sizeof(bf16));
      std::memcpy(values.data(), constant.bytes.data(), constant.bytes.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float mean = static_cast<float>(l + 1) * static_cast<float>(e - 2) + static_cast<float>(i) / 8;
        EXPECT_EQ(values[i].bits, to_bf16(e == 0 ? 0 : mean).bits) << l << " " << e << " " << i;
      }
      after.erase(expert(l, e, "approx_value"));
    }
  }
  EXPECT_TRUE(after.empty()) << after.begin()->first;
}

TEST_F(Substitution, NamesTheDroppedExpertsInTheConfig) {
  write();
  Json config = parse_json(read_text(output_ / "config.json"), "config");
  for (std::size_t l = 0; l < plan_.layers.size(); ++l) {
    std::vector<std::int32_t> gone;
    for (std::int32_t e = 0; e < plan_.experts; ++e) {
      if (!keeps(l, e)) gone.push_back(e);
    }
    EXPECT_EQ(config["approximate_experts"][fmt::to_string(l)].get<std::vector<std::int32_t>>(), gone);
  }
  EXPECT_EQ(config["num_local_experts"], source_.model.router.experts);
}

TEST_F(Substitution, IsProvedAgainstSourceAndMeans) {
  write();
  verify(options_.means.get());
  verify(nullptr);
  EXPECT_EQ(read_manifest(output_).form, Form::substitution);
  EXPECT_EQ(output_difference(output_, plan_.model_digest, plan_, options_), "");
  WriteOptions ordinary = options_;
  ordinary.form = Form::ordinary;
  EXPECT_NE(output_difference(output_, plan_.model_digest, plan_, ordinary).find("--form substitution"),
            std::string::npos);
  MeanOutputs others = *options_.means;
  for (bf16& value : others.values) value.bits ^= 1;
  expect_error(ExitCode::bad_input, {"approx_value", "mean output"}, [&] { verify(&others); });
}

TEST_F(Substitution, WhatIsSpoiltIsFound) {
  write();
  const std::string config = read_text(output_ / "config.json");
  const auto spoilt = [&](const std::filesystem::path& file, const std::string& from, const std::string& to,
                          const std::vector<std::string>& words) {
    const std::string text = read_text(file);
    world_.all_barrier();
    if (world_.rank() == 0) {
      std::string changed = text;
      const std::size_t at = changed.find(from);
      ASSERT_NE(at, std::string::npos) << from;
      write_text(file, changed.replace(at, from.size(), to));
    }
    world_.all_barrier();
    expect_error(ExitCode::bad_input, words, [&] { verify(nullptr); });
    world_.all_barrier();
    if (world_.rank() == 0) write_text(file, text);
    world_.all_barrier();
  };
  spoilt(output_ / "config.json", "\"approximate_experts\": {\"0\": [0", "\"approximate_experts\": {\"0\": [1",
         {"approximate_experts"});
  std::string name = expert(0, 0, "approx_value");
  const Json index = parse_json(read_text(output_ / "model.safetensors.index.json"), "index");
  const std::filesystem::path file = output_ / index["weight_map"][name].get<std::string>();
  const StoredTensor constant = read_tensors(file).at(name);
  const std::size_t begin = read_text(file).size() - constant.bytes.size();  // whichever tensor is the last
  world_.all_barrier();
  if (world_.rank() == 0) {
    std::string bytes = read_text(file);
    bytes[begin + 3] = static_cast<char>(bytes[begin + 3] ^ 1);
    write_text(file, bytes);
  }
  world_.all_barrier();
  expect_error(ExitCode::bad_input, {"model-"}, [&] { verify(nullptr); });
}

TEST_F(Substitution, IsRefusedWhereItCannotBe) {
  const OpenSource fp8(test_model("m2-mini-fp8"));
  Plan plan = shuffled_plan(fp8, fp8.model.router.experts - 2);
  expect_error(ExitCode::usage, {"FP8", "BF16"},
               [&] { plan_output(fp8.checkpoint, fp8.model, fp8.claims, plan, options_); });
  SaliencyFile bare = measured(source_, plan_);
  bare.saliency.outputs.clear();
  expect_error(ExitCode::usage, {"--collect gram outputs"}, [&] { mean_outputs(bare); });
  expect_error(ExitCode::usage, {"--saliency is missing"}, [&] { read_mean_outputs("", {}); });
  WriteOptions ordinary;
  expect_error(ExitCode::usage, {"num_local_experts", "--form substitution"},
               [&] { plan_output(source_.checkpoint, source_.model, source_.claims, plan_, ordinary); });
}

}  // namespace
}  // namespace reap
