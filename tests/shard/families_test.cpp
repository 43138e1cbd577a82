#include "shard/families.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "shard/checkpoint_files.hpp"
#include "shard/family.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kData = REAP_TEST_DATA;

class Families : public testing::Test {
 protected:
  Model describe(ToyModel toy) {
    toy.write(directory_.path());
    return describe_model(Checkpoint(directory_.path()));
  }
  std::vector<Claim> claim(ToyModel toy) {
    toy.write(directory_.path());
    const Checkpoint checkpoint(directory_.path());
    return claim_tensors(checkpoint, describe_model(checkpoint));
  }
  void set(const char* key, const char* value) { toy_.config = with_member(toy_.config, key, value); }

  TemporaryDirectory directory_;
  ToyModel toy_;
};

TEST_F(Families, DescribesTheBundledModels) {
  const Checkpoint mini(kData / "m2-mini-fp8");
  const Model model = describe_model(mini);
  EXPECT_EQ(model.type, "minimax_m2");
  EXPECT_EQ(model.layers, 2);
  EXPECT_EQ(model.hidden, 160);
  EXPECT_EQ(model.vocab, 211);
  EXPECT_FLOAT_EQ(model.norm_eps, 1e-6f);
  EXPECT_EQ(model.attention.heads, 6);
  EXPECT_EQ(model.attention.kv_heads, 2);
  EXPECT_EQ(model.attention.head_dim, 24);
  EXPECT_EQ(model.attention.rotary_dim, 12);
  EXPECT_EQ(model.attention.rope_theta, 50000.0);
  EXPECT_FLOAT_EQ(model.attention.norm_eps, 1e-6f);
  EXPECT_EQ(model.router.experts, 6);
  EXPECT_EQ(model.router.top_k, 2);
  EXPECT_EQ(model.expert.inner, 136);
  EXPECT_TRUE(model.fp8);
  EXPECT_EQ(model.mtp_layers, 1);
  EXPECT_EQ(model.embedding_element_bytes, 2);
  EXPECT_FALSE(describe_model(Checkpoint(kData / "m2-mini-bf16")).fp8);
  EXPECT_EQ(describe_model(Checkpoint(kData / "m2-mini-bf16")).weight_element_bytes, 2);
  // config.json admits MTP modules, but there is no tensor of one: so it is with the real release.
  EXPECT_EQ(describe_model(Checkpoint(kData / "m2-nano-fp8")).mtp_layers, 0);
}

TEST_F(Families, TellsHowWideWeightsAreStored) {
  EXPECT_EQ(describe(toy_).weight_element_bytes, 2);
  for (TensorInfo& tensor : toy_.tensors) {
    if (tensor.name.find(".experts.") != std::string::npos) tensor.dtype = DType::f32;
  }
  EXPECT_EQ(describe(toy_).weight_element_bytes, 4);
  EXPECT_EQ(describe(toy_).embedding_element_bytes, 2);
  toy_.at("model.embed_tokens.weight").dtype = DType::f32;
  EXPECT_EQ(describe(toy_).embedding_element_bytes, 4);
}

// config.json of the 230B release, what describe_model does not look at left out; then as transformers 5 saves it
// again.
TEST_F(Families, DescribesThePublishedConfig) {
  toy_.config =
      R"({"architectures": ["MiniMaxM2ForCausalLM"], "head_dim": 128, "hidden_act": "silu", "hidden_size": 3072,
    "intermediate_size": 1536, "max_position_embeddings": 196608, "model_type": "minimax_m2", "mtp_transformer_layers": 1,
    "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 62, "num_key_value_heads": 8,
    "num_local_experts": 256, "num_mtp_modules": 3, "qk_norm_type": "per_layer", "quantization_config":
    {"activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8", "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06, "rope_theta": 5000000, "rotary_dim": 64, "scoring_func": "sigmoid", "shared_intermediate_size": 0,
    "tie_word_embeddings": false, "use_mtp": true, "use_qk_norm": true, "use_routing_bias": true, "vocab_size": 200064})";
  set("attn_type_list", Json(std::vector<int>(62, 1)).dump().c_str());
  for (const bool saved_again : {false, true}) {
    if (saved_again) {
      set("partial_rotary_factor", "0.5");
      set("sliding_window", "null");
      set("rope_parameters", R"({"rope_type": "default", "rope_theta": 5000000, "partial_rotary_factor": 0.5})");
    }
    const Model model = describe(toy_);
    EXPECT_EQ(model.layers, 62);
    EXPECT_EQ(model.attention.heads * model.attention.head_dim, 6144);
    EXPECT_EQ(model.attention.rotary_dim, 64);
    EXPECT_EQ(model.attention.rope_theta, 5e6);
    EXPECT_EQ(model.router.experts, 256);
  }
}

TEST_F(Families, ClaimsEveryTensorOfTheBundledModelsOnce) {
  for (const char* name : {"m2-mini-fp8", "m2-mini-bf16", "m2-nano-fp8"}) {
    SCOPED_TRACE(name);
    const Checkpoint checkpoint(kData / name);
    const Model model = describe_model(checkpoint);
    const std::vector<Claim> claims = claim_tensors(checkpoint, model);
    ASSERT_EQ(claims.size(), checkpoint.tensors().size());
    std::map<Part, std::int64_t> count;
    for (std::size_t i = 0; i < claims.size(); ++i) {
      const bool mtp = claims[i].part == Part::mtp;
      EXPECT_EQ(mtp, claims[i].layer >= model.layers);
      if (!mtp) {
        EXPECT_EQ(tensor_name(model, claims[i]), checkpoint.tensors()[i].name);
      }
      if (!claims[i].scale) ++count[claims[i].part];
    }
    EXPECT_EQ(count[Part::embedding], 1);
    EXPECT_EQ(count[Part::head], 1);
    EXPECT_EQ(count[Part::gate_bias], model.layers);
    EXPECT_EQ(count[Part::w2], model.layers * model.router.experts);
  }
}

TEST_F(Families, ClaimsSayLayerExpertAndScale) {
  const Checkpoint checkpoint(kData / "m2-mini-fp8");
  const std::vector<Claim> claims = claim_tensors(checkpoint, describe_model(checkpoint));
  const auto claim_of = [&](std::string_view name) {
    return claims[static_cast<std::size_t>(&checkpoint.at(name) - checkpoint.tensors().data())];
  };
  const auto expect = [&](std::string_view name, Part part, int layer, int expert, bool scale) {
    const Claim claim = claim_of(name);
    EXPECT_EQ(claim.part, part) << name;
    EXPECT_EQ(claim.layer, layer) << name;
    EXPECT_EQ(claim.expert, expert) << name;
    EXPECT_EQ(claim.scale, scale) << name;
  };
  expect("model.norm.weight", Part::final_norm, -1, -1, false);
  expect("model.layers.1.self_attn.o_proj.weight_scale_inv", Part::o, 1, -1, true);
  expect("model.layers.0.block_sparse_moe.gate.weight", Part::gate, 0, -1, false);
  expect("model.layers.1.block_sparse_moe.experts.5.w3.weight", Part::w3, 1, 5, false);
  expect("model.layers.1.block_sparse_moe.experts.4.w2.weight_scale_inv", Part::w2, 1, 4, true);
  expect("model.layers.2.eh_proj.weight", Part::mtp, 2, -1, false);
  expect("model.layers.2.block_sparse_moe.gate.weight", Part::mtp, 2, -1, false);
  expect("model.layers.2.block_sparse_moe.experts.3.w1.weight_scale_inv", Part::mtp, 2, 3, true);
}

TEST_F(Families, AcceptsTheToyAsItIs) {
  EXPECT_EQ(claim(toy_).size(), 3u + 2 * 19);
  EXPECT_EQ(claim(ToyModel(true)).size(), 3u + 2 * (19 + 13));
}

TEST_F(Families, AcceptsOtherSpellingsOfTheSameConfig) {
  set("head_dim", "null");  // hidden_size / num_attention_heads, where that is whole
  set("hidden_size", "40");
  EXPECT_EQ(describe(toy_).attention.head_dim, 10);
  set("rotary_dim", "null");
  set("partial_rotary_factor", "0.6");
  EXPECT_EQ(describe(toy_).attention.rotary_dim, 6);
  set("rope_theta", "null");
  set("rope_parameters", R"({"rope_type": "default", "rope_theta": 7000.5})");
  EXPECT_EQ(describe(toy_).attention.rope_theta, 7000.5);
  set("partial_rotary_factor", "null");
  set("rope_parameters", R"({"rope_theta": 7000.5, "partial_rotary_factor": 0.6})");
  EXPECT_EQ(describe(toy_).attention.rotary_dim, 6);
  set("quantization_config", R"({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"})");
  set("attn_type_list", "null");
  EXPECT_NO_THROW(describe(toy_));
}

TEST_F(Families, RefusesEveryConfigItDoesNotCompute) {
  struct Case {
    const char *key, *value;
    std::string_view word;
  };
  const std::vector<Case> cases{
      {"model_type", "\"mixtral\"", "model_type"},
      {"model_type", "7", "model_type"},
      {"model_type", "null", "model_type is missing"},
      {"hidden_size", "null", "hidden_size is missing"},
      {"hidden_size", "0", "hidden_size is 0"},
      {"hidden_size", "-130", "hidden_size"},
      {"hidden_size", "130.0", "hidden_size"},
      {"hidden_size", "\"130\"", "hidden_size"},
      {"hidden_size", "4611686018427387904", "hidden_size"},
      {"hidden_size", "18446744073709551615", "hidden_size"},
      {"hidden_size", "1e30", "hidden_size"},
      {"num_hidden_layers", "0", "num_hidden_layers"},
      {"num_hidden_layers", "4294967298", "num_hidden_layers"},
      {"vocab_size", "2147483648", "vocab_size"},
      {"rms_norm_eps", "0", "rms_norm_eps"},
      {"rms_norm_eps", "1e-60", "rms_norm_eps"},
      {"rms_norm_eps", "1.5", "rms_norm_eps"},
      {"rms_norm_eps", "\"1e-6\"", "rms_norm_eps"},
      {"num_attention_heads", "0", "num_attention_heads"},
      {"num_key_value_heads", "3", "num_key_value_heads"},
      {"num_key_value_heads", "8", "num_key_value_heads"},
      {"head_dim", "null", "head_dim"},
      {"rotary_dim", "5", "rotary_dim is 5"},
      {"rotary_dim", "12", "rotary_dim is 12"},
      {"rotary_dim", "0", "rotary_dim"},
      {"rotary_dim", "null", "rotary_dim is missing"},
      {"partial_rotary_factor", "0.5", "partial_rotary_factor"},
      {"partial_rotary_factor", "1e300", "partial_rotary_factor"},
      {"rope_theta", "null", "rope_theta is missing"},
      {"rope_theta", "-1", "rope_theta"},
      {"rope_theta", "[1]", "rope_theta"},
      {"rope_parameters", R"({"rope_theta": 1})", "rope_parameters.rope_theta is 1"},
      {"rope_parameters", R"({"rope_type": "yarn"})", "rope_parameters.rope_type is \"yarn\""},
      {"rope_parameters", "[]", "rope_parameters"},
      {"rope_scaling", R"({"type": "linear"})", "rope_scaling"},
      {"use_qk_norm", "false", "use_qk_norm is false"},
      {"use_qk_norm", "null", "use_qk_norm is missing"},
      {"qk_norm_type", "\"per_head\"", "qk_norm_type"},
      {"attn_type_list", "[1]", "attn_type_list"},
      {"attn_type_list", "[1, 0]", "attn_type_list"},
      {"attn_type_list", "[1, true]", "attn_type_list"},
      {"attn_type_list", "1", "attn_type_list"},
      {"sliding_window", "4096", "sliding_window"},
      {"num_local_experts", "0", "num_local_experts"},
      {"num_local_experts", "99999999", "num_local_experts"},
      {"num_experts_per_tok", "4", "num_experts_per_tok"},
      {"intermediate_size", "0", "intermediate_size"},
      {"hidden_act", "\"gelu\"", "hidden_act is \"gelu\": only \"silu\""},
      {"scoring_func", "\"softmax\"", "scoring_func"},
      {"scoring_func", "null", "scoring_func is missing"},
      {"use_routing_bias", "false", "use_routing_bias"},
      {"shared_intermediate_size", "64", "shared_intermediate_size"},
      {"tie_word_embeddings", "true", "tie_word_embeddings"},
      {"num_mtp_modules", "-1", "num_mtp_modules"},
      {"num_mtp_modules", "1000000", "num_mtp_modules"},
      {"quantization_config", "7", "quantization_config"},
      {"quantization_config", "{}", "quantization_config.quant_method is missing"},
      {"quantization_config", R"({"quant_method": "awq"})", "quantization_config.quant_method is \"awq\""},
      {"quantization_config", R"({"quant_method": "fp8"})", "quantization_config.weight_block_size is missing"},
      {"quantization_config", R"({"quant_method": "fp8", "weight_block_size": [64, 128]})",
       "weight_block_size is [64,128]"},
      {"quantization_config", R"({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e5m2"})",
       "fmt is \"e5m2\""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{}: {}", c.key, c.value));
    ToyModel toy;
    toy.config = with_member(toy.config, c.key, c.value);
    expect_error(ExitCode::bad_input, {"config.json", c.word}, [&] { describe(toy); });
  }
}

constexpr const char* kExpert = "model.layers.1.block_sparse_moe.experts.2.w2.weight";

TEST_F(Families, NamesMissingTensors) {
  toy_.remove(kExpert);
  expect_error(ExitCode::bad_input, {"1 tensors", kExpert}, [&] { claim(toy_); });
  for (const char* name : {"lm_head.weight", "model.layers.0.self_attn.k_norm.weight", "model.norm.weight"})
    toy_.remove(name);
  expect_error(ExitCode::bad_input,
               {"4 tensors", "model.norm.weight, lm_head.weight, model.layers.0.self_attn.k_norm.weight, ..."},
               [&] { claim(toy_); });
}

// A config that asks for far more than there is must not cost more than what is there.
TEST_F(Families, HugeCountsAreRefusedQuickly) {
  set("num_hidden_layers", "65536");
  set("num_local_experts", "65536");
  set("attn_type_list", "null");
  toy_.tensors.resize(3);
  expect_error(ExitCode::bad_input, {"model.layers.0.input_layernorm.weight"}, [&] { claim(toy_); });
}

TEST_F(Families, RefusesTensorsThatBelongNowhere) {
  struct Case {
    const char* name;
    std::vector<std::int64_t> shape;
    std::string_view word;
  };
  const std::vector<Case> cases{
      {"model.layers.0.self_attn.q_proj.bias", {40}, "belongs to no part of a minimax_m2 model"},
      {"model.layers.0.block_sparse_moe.expert_scale", {3}, "looks like a per-expert tensor"},
      {"model.layers.0.block_sparse_moe.experts.3.w1.weight", {5, 130}, "there are 3 experts"},
      {"model.layers.0.block_sparse_moe.experts.00.w1.weight", {5, 130}, "belongs to no part"},
      {"model.layers.+0.input_layernorm.weight", {130}, "belongs to no part"},
      {"model.layers.{layer}.input_layernorm.weight", {130}, "belongs to no part"},
      {"model.layers.0.block_sparse_moe.experts.{expert}.w1.weight", {5, 130}, "belongs to no part"},
      {"model.layers.99999999999999999999.input_layernorm.weight", {130}, "belongs to no part"},
      {"model.layers.3.input_layernorm.weight", {130}, "beyond num_hidden_layers 2 and 1 MTP"},
      {"model.norm.weight_scale_inv", {2}, "belongs to no part"},
      {"model.layers.0.mlp.experts.gate_up_proj", {3, 10, 130}, "all experts in one tensor"},
      {"model.layers.0.mlp.experts.down_proj", {3, 130, 5}, "all experts in one tensor"},
      {"model.layers.0.self_attn.q_proj.qweight", {40, 16}, "quantised already"},
      {"", {}, "belongs to no part"},
      {"...", {1}, "belongs to no part"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    ToyModel toy;
    toy.add(c.name, DType::f32, c.shape);
    expect_error(ExitCode::bad_input, {"model.safetensors", shown(c.name), c.word}, [&] { claim(toy); });
  }
}

TEST_F(Families, RefusesWrongShapesAndTypes) {
  struct Case {
    const char* name;
    DType dtype;
    std::vector<std::int64_t> shape;
    std::string_view word;
  };
  const std::vector<Case> cases{
      {kExpert, DType::bf16, {5, 130}, "must be [130, 5]"},
      {kExpert, DType::bf16, {650}, "must be [130, 5]"},
      {kExpert, DType::bf16, {130, 5, 1}, "must be [130, 5]"},
      {kExpert, DType::i8, {130, 5}, "must be BF16, F16, F32 or F8_E4M3"},
      {kExpert, DType::f8_e5m2, {130, 5}, "must be BF16, F16, F32 or F8_E4M3"},
      {kExpert, DType::f8_e4m3, {130, 5}, "without its model.layers.1.block_sparse_moe.experts.2.w2.weight_scale_inv"},
      {"model.layers.0.block_sparse_moe.gate.weight", DType::f32, {2, 130}, "must be [3, 130]"},
      {"model.layers.0.block_sparse_moe.gate.weight", DType::f8_e4m3, {3, 130}, "must be BF16, F16 or F32"},
      {"model.layers.0.block_sparse_moe.e_score_correction_bias", DType::f64, {3}, "must be BF16, F16 or F32"},
      {"model.embed_tokens.weight", DType::bf16, {8, 130}, "must be [7, 130]"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{} {}", c.name, c.word));
    ToyModel toy;
    toy.at(c.name).dtype = c.dtype;
    toy.at(c.name).shape = c.shape;
    expect_error(ExitCode::bad_input, {"model.safetensors", c.name, "offset", c.word}, [&] { claim(toy); });
  }
}

TEST_F(Families, ScalesBelongToFp8Weights) {
  const std::string scale = std::string(kExpert) + "_scale_inv";
  ToyModel toy(true);
  toy.at(scale).shape = {1, 1};
  expect_error(ExitCode::bad_input, {scale, "must be [2, 1]"}, [&] { claim(toy); });
  toy.at(scale).shape = {2, 1};
  toy.at(scale).dtype = DType::bf16;
  expect_error(ExitCode::bad_input, {scale, "must be F32"}, [&] { claim(toy); });
  toy.at(scale).dtype = DType::f32;
  toy.at(kExpert).dtype = DType::bf16;
  expect_error(ExitCode::bad_input, {scale, "without an F8_E4M3 weight"}, [&] { claim(toy); });
  toy.remove(scale);
  EXPECT_NO_THROW(claim(toy));  // one tensor may be BF16 while the others are FP8
}

TEST_F(Families, MtpTensorsAreClaimedWhateverTheyAre) {
  toy_.add("model.layers.2.enorm.weight", DType::i32, {3, 1});
  toy_.add("model.layers.2.block_sparse_moe.experts.77.w1.weight", DType::f32, {1});
  const std::vector<Claim> claims = claim(toy_);
  const auto mtp = std::count_if(claims.begin(), claims.end(), [](const Claim& c) { return c.part == Part::mtp; });
  EXPECT_EQ(mtp, 2);
  EXPECT_EQ(describe(toy_).mtp_layers, 1);
  set("num_mtp_modules", "0");
  expect_error(ExitCode::bad_input, {"model.layers.2.", "0 MTP layers"}, [&] { describe(toy_); });
}

TEST(ParseTensorName, FirstNumberIsTheLayerSecondTheExpert) {
  const ParsedName name = parse_tensor_name("a.12.b.3.c.4.weight_scale_inv");
  EXPECT_EQ(name.pattern, "a.{layer}.b.{expert}.c.4.weight");
  EXPECT_EQ(name.layer, 12);
  EXPECT_EQ(name.expert, 3);
  EXPECT_TRUE(name.scale);
  EXPECT_EQ(parse_tensor_name("x.01.-1.1e3.").pattern, "x.01.-1.1e3.");
}

TEST_F(Families, TensorNameOfAnMtpPartIsABug) {
  const Model model = describe(toy_);
  expect_error(ExitCode::bug, {}, [&] { tensor_name(model, {Part::mtp, 2}); });
}

}  // namespace
}  // namespace reap
