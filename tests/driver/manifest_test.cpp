#include "driver/manifest.hpp"

#include <gtest/gtest.h>

#include <string>

#include "driver/expect_error.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

const std::string kSha(64, 'a');
const std::string kXxh(32, 'b');

Manifest example() {
  Manifest manifest;
  manifest.software = "reap_dist 1.2.3";
  manifest.model_type = "minimax_m2";
  manifest.source_digest = kSha;
  manifest.output_digest = std::string(64, 'c');
  manifest.calibration_digest = kXxh;
  manifest.compute = "bf16";
  manifest.block_tokens = 4096;
  manifest.numerics_id = "cpu onednn";
  manifest.plan.sha256 = kSha;
  manifest.plan.request = {"reap", 0.3, 0, 8, 18'000'000'000'000'000'000U, true, {{"code", 2}}, {{"code", 0.1}}};
  manifest.plan.experts = 4;
  manifest.plan.kept = 2;
  manifest.plan.top_k = 1;
  manifest.plan.keep = {{0, 3}, {1, 2}};
  manifest.max_shard_bytes = 5'000'000'000;
  manifest.mtp = Mtp::keep;
  manifest.files = {
      {"model-00001-of-00002.safetensors", 6'000'000'000, kSha, {{"a \"b\"", DType::bf16, {2, 3}, "c", kXxh}}},
      {"model-00002-of-00002.safetensors",
       10,
       kSha,
       {{"s", DType::f32, {}, "s", kXxh}, {"t", DType::f8_e4m3, {1}, "u", kXxh}}}};
  manifest.side_files = {{"config.json", 12, kSha}};
  return manifest;
}

TEST(Manifest, ComesBackAsItWasWritten) {
  const std::string text = manifest_text(example());
  const Manifest back = parse_manifest(text, "m");
  EXPECT_EQ(manifest_text(back), text);
  EXPECT_EQ(back.plan.keep, example().plan.keep);
  EXPECT_EQ(back.compute, "bf16");
  EXPECT_EQ(back.block_tokens, 4096);
  EXPECT_EQ(back.numerics_id, "cpu onednn");
  EXPECT_EQ(back.plan.request.seed, example().plan.request.seed);
  EXPECT_EQ(back.plan.request.domain_weights, example().plan.request.domain_weights);
  EXPECT_EQ(back.plan.request.protect, example().plan.request.protect);
  EXPECT_EQ(back.mtp, Mtp::keep);
  ASSERT_EQ(back.files.size(), 2u);
  EXPECT_EQ(back.files[0].tensors[0].name, "a \"b\"");
  EXPECT_EQ(back.files[0].bytes, 6'000'000'000u);
  EXPECT_EQ(back.files[1].tensors[1].dtype, DType::f8_e4m3);
  EXPECT_EQ(back.files[1].tensors[0].shape, std::vector<std::int64_t>{});
  EXPECT_EQ(back.side_files[0].name, "config.json");
}

TEST(Manifest, HasALinePerLayerAndTensor) {
  const std::string text = manifest_text(example());
  EXPECT_NE(text.find("\n   [0, 3],\n   [1, 2]\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n   {\"name\": \"s\", \"dtype\": \"F32\", \"shape\": [], \"source\": \"s\", \"xxh3\": \"" +
                      kXxh + "\"},\n"),
            std::string::npos)
      << text;
}

TEST(Manifest, AnythingElseIsRefusedByName) {
  const std::string text = manifest_text(example());
  expect_error(ExitCode::bad_input, {"where.json"}, [] { parse_manifest("[]", "where.json"); });
  expect_error(ExitCode::bad_input, {"where.json"}, [] { parse_manifest("", "where.json"); });
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string other = text;
    const std::size_t at = other.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    other.replace(at, from.size(), to);
    return other;
  };
  const auto refuse = [&](const std::string& from, const std::string& to, const std::string& word) {
    expect_error(ExitCode::bad_input, {"where.json", word}, [&] { parse_manifest(changed(from, to), "where.json"); });
  };
  refuse("reap-manifest", "other", "reap-manifest");
  refuse("\"version\": 1", "\"version\": 2", "version 1");
  refuse("\"BF16\"", "\"BF17\"", "BF17");
  refuse(kXxh + "\"}", "short\"}", "digest");
  refuse("\"bytes\": 10", "\"bytes\": -10", "bytes");
  refuse("\"software\"", "\"hardware\"", "software");
  refuse("[0, 3]", "[0, \"3\"]", "not a manifest");
}

}  // namespace
}  // namespace reap
