#include "shard/families.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "kernels/check.hpp"
#include "shard/family.hpp"

namespace reap {
namespace {

// Far above any model, and small enough that no product of three overflows.
constexpr std::int64_t kMaxWidth = 1 << 20;
constexpr std::int64_t kMaxVocab = 1 << 24;
constexpr std::int64_t kMaxCount = 1 << 16;  // layers, experts
constexpr std::int64_t kMaxHeads = 1 << 12;
constexpr std::int64_t kMaxHeadDim = 1 << 12;
constexpr std::int64_t kMaxMtpModules = 64;

std::int64_t group_size(const ConfigReader& config) {
  const std::int64_t group = config.integer("group_size", 1, kMaxWidth);
  if (group != 32 && group != 64 && group != 128) config.refuse("group_size", "must be 32, 64 or 128");
  return group;
}

// The one group of compressed-tensors' settings that we know: 4 bits for all linear layers.
W4Layout packed_layout(const ConfigReader& quantization) {
  quantization.require("format", "pack-quantized");
  const std::optional<ConfigReader> groups = quantization.optional_object("config_groups");
  const std::optional<ConfigReader> group = groups ? groups->optional_object("group_0") : std::nullopt;
  const std::optional<ConfigReader> weights = group ? group->optional_object("weights") : std::nullopt;
  if (!weights) quantization.refuse("config_groups", "must hold group_0 with its weights");
  weights->require("num_bits", 4);
  weights->require("type", "int");
  weights->require("symmetric", true);
  weights->require("strategy", "group");
  return {W4Format::compressed_tensors, group_size(*weights)};
}

// 4 bits, symmetric, without reordered inputs.
std::optional<W4Layout> w4_layout(const ConfigReader& config) {
  const std::optional<ConfigReader> quantization = config.optional_object("quantization_config");
  if (!quantization) return std::nullopt;
  const std::optional<W4Format> format = w4_format_named(quantization->text("quant_method"));
  if (!format) return std::nullopt;
  if (*format == W4Format::compressed_tensors) return packed_layout(*quantization);
  quantization->require("bits", 4);
  quantization->require("sym", true);
  if (*format == W4Format::auto_round) {
    quantization->require("data_type", "int");
    quantization->require("packing_format", "auto_round:auto_gptq");
  } else {
    quantization->require("desc_act", false);
    quantization->require_if_present("checkpoint_format", "gptq");
  }
  return W4Layout{*format, group_size(*quantization)};
}

// Other quantised weights than these and FP8 in blocks of 128 x 128 are not read.
void check_quantization(const ConfigReader& config) {
  const std::optional<ConfigReader> quantization = config.optional_object("quantization_config");
  if (!quantization || w4_layout(config)) return;
  if (quantization->text("quant_method") != "fp8") {
    quantization->refuse("quant_method", "prune the unquantised or the FP8 model, then quantise the result");
  }
  quantization->require("weight_block_size", {kScaleBlock, kScaleBlock});
  if (quantization->has("fmt")) {
    const std::string format = quantization->text("fmt");
    if (format != "float8_e4m3fn" && format != "e4m3") quantization->refuse("fmt", "only float8_e4m3fn is supported");
  }
}

// Newer releases of transformers keep the rotary values in an object of their own.
std::optional<double> rope_value(const ConfigReader& config, std::string_view key) {
  const std::optional<double> direct = config.optional_positive(key);
  const std::optional<ConfigReader> rope = config.optional_object("rope_parameters");
  if (!rope) return direct;
  rope->require_if_present("rope_type", "default");
  const std::optional<double> nested = rope->optional_positive(key);
  if (direct && nested && *direct != *nested) rope->refuse(key, "differs from the value outside rope_parameters");
  return direct ? direct : nested;
}

std::int64_t rotary_dim(const ConfigReader& config, std::int64_t head_dim) {
  std::optional<std::int64_t> dim = config.optional_integer("rotary_dim", 2, head_dim);
  if (const std::optional<double> factor = rope_value(config, "partial_rotary_factor")) {
    const double exact = static_cast<double>(head_dim) * *factor;
    const bool whole = exact <= static_cast<double>(head_dim) && std::abs(exact - std::round(exact)) < 1e-6;
    if (!whole || dim.value_or(std::llround(exact)) != std::llround(exact)) {
      config.refuse("partial_rotary_factor", fmt::format("disagrees with rotary_dim or head_dim {}", head_dim));
    }
    dim = std::llround(exact);
  }
  if (!dim || *dim < 2 || *dim % 2 != 0) config.refuse("rotary_dim", "must be an even number, at most head_dim");
  return *dim;
}

AttentionShape minimax_m2_attention(const ConfigReader& config, std::int64_t hidden, float norm_eps) {
  config.require("use_qk_norm", true);
  config.require("qk_norm_type", "per_layer");
  config.require_absent("sliding_window");
  config.require_absent("rope_scaling");
  AttentionShape shape{};
  shape.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  shape.kv_heads = config.integer("num_key_value_heads", 1, shape.heads);
  if (shape.heads % shape.kv_heads != 0) config.refuse("num_key_value_heads", "must divide num_attention_heads");
  if (!config.has("head_dim") && hidden % shape.heads != 0) config.refuse("head_dim", "must be given");
  shape.head_dim = config.optional_integer("head_dim", 2, kMaxHeadDim).value_or(hidden / shape.heads);
  shape.rotary_dim = rotary_dim(config, shape.head_dim);
  const std::optional<double> theta = rope_value(config, "rope_theta");
  if (!theta) config.refuse("rope_theta", "must be a number above zero");
  shape.rope_theta = *theta;
  shape.norm_eps = norm_eps;
  return shape;
}

// Other kinds of attention than softmax attention are not computed: all entries must be 1.
void check_attention_types(const ConfigReader& config, std::int64_t layers) {
  const Json* types = config.find("attn_type_list");
  if (types == nullptr) return;
  const auto is_full = [](const Json& type) { return type.is_number_integer() && type == 1; };
  if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers ||
      !std::all_of(types->begin(), types->end(), is_full)) {
    config.refuse("attn_type_list", fmt::format("must be {} times 1: only full attention is supported", layers));
  }
}

Model describe_minimax_m2(const ConfigReader& config) {
  config.require("scoring_func", "sigmoid");
  config.require("use_routing_bias", true);
  config.require("hidden_act", "silu");
  config.require_if_present("shared_intermediate_size", 0);
  config.require_if_present("tie_word_embeddings", false);
  check_quantization(config);

  Model model{};
  model.layers = config.integer("num_hidden_layers", 1, kMaxCount);
  model.hidden = config.integer("hidden_size", 1, kMaxWidth);
  model.vocab = config.integer("vocab_size", 1, kMaxVocab);
  model.norm_eps = static_cast<float>(config.positive("rms_norm_eps"));
  if (!(model.norm_eps > 0 && model.norm_eps < 1)) config.refuse("rms_norm_eps", "must be a float32 in (0, 1)");
  model.attention = minimax_m2_attention(config, model.hidden, model.norm_eps);
  check_attention_types(config, model.layers);
  model.router.experts = config.integer("num_local_experts", 1, kMaxCount);
  model.router.top_k = config.integer("num_experts_per_tok", 1, model.router.experts);
  model.expert.inner = config.integer("intermediate_size", 1, kMaxWidth);
  model.mtp_layers = config.optional_integer("num_mtp_modules", 0, kMaxMtpModules).value_or(0) *
                     config.optional_integer("mtp_transformer_layers", 1, kMaxMtpModules).value_or(1);
  return model;
}

constexpr std::array<TensorRule, 16> kMinimaxM2Tensors{{
    {"model.embed_tokens.weight", Part::embedding, {Extent::vocab, Extent::hidden}},
    {"model.norm.weight", Part::final_norm, {Extent::hidden}},
    {"lm_head.weight", Part::head, {Extent::vocab, Extent::hidden}},
    {"model.layers.{layer}.input_layernorm.weight", Part::input_norm, {Extent::hidden}},
    {"model.layers.{layer}.post_attention_layernorm.weight", Part::post_norm, {Extent::hidden}},
    {"model.layers.{layer}.self_attn.q_proj.weight", Part::q, {Extent::query, Extent::hidden}, true},
    {"model.layers.{layer}.self_attn.k_proj.weight", Part::k, {Extent::key_value, Extent::hidden}, true},
    {"model.layers.{layer}.self_attn.v_proj.weight", Part::v, {Extent::key_value, Extent::hidden}, true},
    {"model.layers.{layer}.self_attn.o_proj.weight", Part::o, {Extent::hidden, Extent::query}, true},
    {"model.layers.{layer}.self_attn.q_norm.weight", Part::q_norm, {Extent::query}},
    {"model.layers.{layer}.self_attn.k_norm.weight", Part::k_norm, {Extent::key_value}},
    {"model.layers.{layer}.block_sparse_moe.gate.weight", Part::gate, {Extent::experts, Extent::hidden}},
    {"model.layers.{layer}.block_sparse_moe.e_score_correction_bias", Part::gate_bias, {Extent::experts}},
    {"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight",
     Part::w1,
     {Extent::inner, Extent::hidden},
     true},
    {"model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight",
     Part::w3,
     {Extent::inner, Extent::hidden},
     true},
    {"model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight",
     Part::w2,
     {Extent::hidden, Extent::inner},
     true},
}};

const std::array<Family, 1> kFamilies{{
    {"minimax_m2", describe_minimax_m2, "model.layers.{layer}.", kMinimaxM2Tensors},
}};

// The type of the weights that are not quantised; newer releases of transformers call it dtype.
std::string stored_type(const ConfigReader& config) {
  for (const std::string_view key : {"torch_dtype", "dtype"}) {
    if (const Json* type = config.find(key); type != nullptr && type->is_string()) return type->get<std::string>();
  }
  return "bfloat16";
}

// How many layers behind the last decoder layer hold tensors, at most the number that config.json admits.
std::int64_t count_mtp_layers(const Checkpoint& checkpoint, const Family& family, const Model& model) {
  std::int64_t count = 0;
  for (const Tensor& tensor : checkpoint.tensors()) {
    const ParsedName name = parse_tensor_name(tensor.name);
    if (!name.pattern.starts_with(family.layer_prefix) || name.layer < model.layers) continue;
    if (name.layer >= model.layers + model.mtp_layers) {
      fail(ExitCode::bad_input,
           "{}: tensor {} is of a layer beyond num_hidden_layers {} and {} MTP layers of config.json",
           (checkpoint.directory() / checkpoint.files()[tensor.file]).string(), shown(tensor.name), model.layers,
           model.mtp_layers);
    }
    count = std::max(count, name.layer - model.layers + 1);
  }
  return count;
}

// Bytes per element of a tensor; of one that is missing, which claim_tensors refuses, those of bf16.
std::int64_t element_bytes(const Checkpoint& checkpoint, const std::string& name) {
  const Tensor* tensor = checkpoint.find(name);
  return static_cast<std::int64_t>(size_of(tensor == nullptr ? DType::bf16 : tensor->dtype));
}

}  // namespace

const Family* find_family(std::string_view model_type) {
  const auto family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                   [&](const Family& candidate) { return candidate.model_type == model_type; });
  return family == kFamilies.end() ? nullptr : &*family;
}

Model describe_config(const Json& json, const std::string& file) {
  const ConfigReader config(json, file);
  const std::string type = config.text("model_type");
  const Family* family = find_family(type);
  if (family == nullptr) config.refuse("model_type", "only minimax_m2 is supported");
  Model model = family->describe(config);
  model.type = type;
  model.w4 = w4_layout(config);
  model.fp8 = config.has("quantization_config") && !model.w4;
  const bool is_f32 = stored_type(config) == "float32";
  model.weight_element_bytes = model.fp8 ? 1 : is_f32 || model.w4 ? 4 : 2;
  model.embedding_element_bytes = is_f32 ? 4 : 2;
  return model;
}

Model describe_model(const Checkpoint& checkpoint) {
  Model model = describe_config(checkpoint.config(), (checkpoint.directory() / "config.json").string());
  model.fp8 = std::any_of(checkpoint.tensors().begin(), checkpoint.tensors().end(),
                          [](const Tensor& tensor) { return tensor.dtype == DType::f8_e4m3; });
  model.weight_element_bytes = model.w4 ? 4 : element_bytes(checkpoint, tensor_name(model, {Part::w1, 0, 0}));
  model.embedding_element_bytes = element_bytes(checkpoint, tensor_name(model, {Part::embedding}));
  model.mtp_layers = count_mtp_layers(checkpoint, *find_family(model.type), model);
  return model;
}

}  // namespace reap
