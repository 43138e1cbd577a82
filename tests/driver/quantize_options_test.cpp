// What is rounded, what is written about it, what is refused, and how large it gets.
#include <gtest/gtest.h>

#include "driver/quantize_config.hpp"
#include "driver/quantize_options.hpp"
#include "driver/quantize_size.hpp"
#include "driver/serving_limits.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

// The release's, as far as sizes go.
Model release() {
  const Json config = parse_json(
      R"({"head_dim": 128, "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 1536,
          "model_type": "minimax_m2", "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 62,
          "num_key_value_heads": 8, "num_local_experts": 256, "qk_norm_type": "per_layer", "rms_norm_eps": 1e-06,
          "rope_theta": 5000000, "rotary_dim": 64, "scoring_func": "sigmoid", "use_qk_norm": true,
          "use_routing_bias": true, "vocab_size": 200064})",
      "config");
  return describe_config(config, "config.json");
}

QuantizeOptions usual() {
  QuantizeOptions options;
  options.group = 128;
  return options;
}

TEST(QuantizeOptions, StarsMatchAnything) {
  EXPECT_TRUE(matches("model.layers.0.self_attn.q_proj", "*.layers.0.*"));
  EXPECT_TRUE(matches("abc", "abc"));
  EXPECT_TRUE(matches("abc", "*"));
  EXPECT_TRUE(matches("aXbXc", "a*b*c"));
  EXPECT_TRUE(matches("ababc", "*abc"));
  EXPECT_TRUE(matches("", "**"));
  EXPECT_FALSE(matches("model.layers.10.w1", "*.layers.0.*"));
  EXPECT_FALSE(matches("abcd", "abc"));
  EXPECT_FALSE(matches("ab", "a*bc"));
}

TEST(QuantizeOptions, RoundAttentionAndExpertsOnly) {
  const QuantizeOptions options = usual();
  EXPECT_EQ(rounding_of(options, Part::w2, "a.w2.weight"), (QuantizeSpec{Rounding::rtn, 128}));
  EXPECT_EQ(rounding_of(options, Part::o, "a.o_proj.weight"), (QuantizeSpec{Rounding::opt_rtn, 128}));
  for (const Part part : {Part::gate, Part::gate_bias, Part::embedding, Part::head, Part::q_norm, Part::input_norm,
                          Part::post_norm, Part::final_norm, Part::k_norm, Part::mtp}) {
    EXPECT_EQ(rounding_of(options, part, "a.weight"), std::nullopt);
  }
  QuantizeOptions fed_back = options;
  fed_back.method = W4Method::gptq;
  for (const Part part : {Part::q, Part::w1, Part::w2}) {
    EXPECT_EQ(rounding_of(fed_back, part, "a.weight"), (QuantizeSpec{Rounding::gptq, 128}));
  }
  QuantizeOptions fewer = options;
  fewer.attention = false;
  fewer.method = W4Method::opt_rtn;
  fewer.exclude = {"*.layers.3.*"};
  EXPECT_EQ(rounding_of(fewer, Part::o, "a.o_proj.weight"), std::nullopt);
  EXPECT_EQ(rounding_of(fewer, Part::w1, "model.layers.3.w1.weight"), std::nullopt);
  EXPECT_EQ(rounding_of(fewer, Part::w1, "model.layers.4.w1.weight"), (QuantizeSpec{Rounding::opt_rtn, 128}));
}

TEST(QuantizeOptions, SurviveTheManifest) {
  QuantizeOptions options = usual();
  options.format = W4Format::compressed_tensors;
  options.method = W4Method::opt_rtn;
  options.attention = false;
  options.exclude = {"*.layers.0.*", "b"};
  EXPECT_EQ(quantize_options_from(to_json(options)), options);
  options.method = W4Method::gptq;
  EXPECT_EQ(quantize_options_from(to_json(options)), options);
  Json damped = to_json(options);
  damped["damping"] = 0.1;
  EXPECT_THROW(quantize_options_from(damped), Error);
  Json unknown = to_json(options);
  unknown["group_size"] = 48;
  EXPECT_THROW(quantize_options_from(unknown), Error);
}

TEST(QuantizeConfig, NamesWhatStaysInEveryFormat) {
  const Model model = release();
  QuantizeOptions options = usual();
  const Json auto_round = quantization_config(options, model, 192);
  EXPECT_EQ(auto_round["extra_config"].size(), 62U);
  EXPECT_EQ(auto_round["extra_config"]["model.layers.61.block_sparse_moe.gate"]["bits"], 16);
  options.attention = false;
  options.format = W4Format::compressed_tensors;
  EXPECT_EQ(quantization_config(options, model, 192)["ignore"].size(), 1U + 62 * 5);
  options.format = W4Format::gptq;
  const Json gptq = quantization_config(options, model, 192);
  EXPECT_EQ(gptq["dynamic"].size(), 62U * 3);
  EXPECT_TRUE(gptq["dynamic"].contains("-:model\\.layers\\.0\\.self_attn\\.(q|k|v|qkv)_proj$"));
}

TEST(Serving, GroupsHaveToDivideWhatARankHolds) {
  const Model model = release();
  EXPECT_EQ(largest_group(model, true, {1, 1}), 128);
  EXPECT_EQ(largest_group(model, true, {4, 1}), 128);
  EXPECT_EQ(largest_group(model, true, {8, 1}), 64);
  EXPECT_EQ(largest_group(model, true, {64, 1}), std::nullopt);
  EXPECT_NO_THROW(check_serving(usual(), model, 192, {4, 8}));
  EXPECT_THROW(check_serving(usual(), model, 192, {8, 1}), Error);
  EXPECT_THROW(check_serving(usual(), model, 180, {1, 8}), Error);
}

TEST(Serving, TakesWhatEnginesFuseTogether) {
  const Model model = release();
  QuantizeOptions options = usual();
  for (const char* half : {"*.layers.2.self_attn.q_proj", "*.layers.5.*.experts.7.*", "*.w2"}) {
    options.exclude = {half};
    EXPECT_THROW(check_serving(options, model, 192, {}), Error) << half;
  }
  for (const char* whole : {"*.o_proj", "*.layers.5.*", "*.self_attn.*", "*.experts.*"}) {
    options.exclude = {whole};
    EXPECT_NO_THROW(check_serving(options, model, 192, {})) << whole;
  }
}

TEST(QuantisedBytes, AreThoseOfThePublishedCheckpoints) {
  constexpr double kGiB = 1073741824.0;
  constexpr double kTolerance = 0.01;
  for (const auto& [kept, gib] : {std::pair{192, 85.5}, {128, 58.2}}) {
    const double bytes = static_cast<double>(quantised_bytes(release(), kept, usual())) / kGiB;
    EXPECT_NEAR(bytes, gib, kTolerance * gib) << kept;
  }
}

}  // namespace
}  // namespace reap
