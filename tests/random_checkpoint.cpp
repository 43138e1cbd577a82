#include "random_checkpoint.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "kernels/dtype.hpp"
#include "shard/safetensors.hpp"

namespace reap::test {
namespace {

class Writer {
 public:
  explicit Writer(const RandomModel& model) : model_{model}, random_{model.seed} {}

  /// A matrix of values in (-1, 1) scaled to keep the variance of what it multiplies; a vector of values around
  /// `middle`.
  void add(const std::string& name, std::vector<std::int64_t> shape, DType dtype, float middle = 0) {
    const std::int64_t count = shape.size() == 2 ? shape[0] * shape[1] : shape[0];
    const float scale = shape.size() == 2 ? 2.0F / std::sqrt(static_cast<float>(shape[1])) : 0.1F;
    std::vector<float> values(static_cast<std::size_t>(count));
    // Not std::uniform_real_distribution: its values differ between standard libraries.
    for (float& value : values) value = middle + scale * (static_cast<float>(random_() % 20001) / 10000.0F - 1.0F);
    if (model_.edit) model_.edit(name, values);
    const std::size_t start = data_.size();
    data_.resize(start + values.size() * size_of(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) put(data_.data() + start + i * size_of(dtype), values[i], dtype);
    tensors_.push_back({name, dtype, std::move(shape), 0, data_.size() - start});
  }

  void write(const std::filesystem::path& file) const {
    std::ofstream out(file, std::ios::binary);
    out << safetensors_header_text(tensors_);
    out.write(reinterpret_cast<const char*>(data_.data()), static_cast<std::streamsize>(data_.size()));
  }

 private:
  static void put(std::byte* to, float value, DType dtype) {
    const bf16 rounded = to_bf16(value);
    if (dtype == DType::bf16) {
      std::memcpy(to, &rounded, sizeof rounded);
    } else {
      std::memcpy(to, &value, sizeof value);
    }
  }

  const RandomModel& model_;
  std::mt19937 random_;
  std::vector<TensorInfo> tensors_;
  std::vector<std::byte> data_;
};

std::string config_text(const RandomModel& m) {
  return fmt::format(R"({{
 "model_type": "minimax_m2", "num_hidden_layers": {}, "hidden_size": {}, "vocab_size": {}, "rms_norm_eps": 1e-06,
 "num_attention_heads": {}, "num_key_value_heads": {}, "head_dim": {}, "rotary_dim": {}, "rope_theta": 10000.0,
 "num_local_experts": {}, "num_experts_per_tok": {}, "intermediate_size": {}, "hidden_act": "silu",
 "scoring_func": "sigmoid", "use_routing_bias": true, "use_qk_norm": true, "qk_norm_type": "per_layer"
}})",
                     m.layers, m.hidden, m.vocab, m.heads, m.kv_heads, m.head_dim, m.rotary_dim, m.experts, m.top_k,
                     m.inner);
}

}  // namespace

void write_random_checkpoint(const std::filesystem::path& directory, const RandomModel& m) {
  Writer writer(m);
  const std::int64_t q = m.heads * m.head_dim;
  const std::int64_t kv = m.kv_heads * m.head_dim;
  writer.add("model.embed_tokens.weight", {m.vocab, m.hidden}, DType::bf16);
  for (std::int64_t layer = 0; layer < m.layers; ++layer) {
    const std::string at = fmt::format("model.layers.{}.", layer);
    writer.add(at + "input_layernorm.weight", {m.hidden}, DType::bf16, 1);
    writer.add(at + "self_attn.q_proj.weight", {q, m.hidden}, DType::bf16);
    writer.add(at + "self_attn.k_proj.weight", {kv, m.hidden}, DType::bf16);
    writer.add(at + "self_attn.v_proj.weight", {kv, m.hidden}, DType::bf16);
    writer.add(at + "self_attn.o_proj.weight", {m.hidden, q}, DType::bf16);
    writer.add(at + "self_attn.q_norm.weight", {q}, DType::bf16, 1);
    writer.add(at + "self_attn.k_norm.weight", {kv}, DType::bf16, 1);
    writer.add(at + "post_attention_layernorm.weight", {m.hidden}, DType::bf16, 1);
    writer.add(at + "block_sparse_moe.gate.weight", {m.experts, m.hidden}, DType::f32);
    writer.add(at + "block_sparse_moe.e_score_correction_bias", {m.experts}, DType::f32);
    for (std::int64_t expert = 0; expert < m.experts; ++expert) {
      const std::string of = fmt::format("{}block_sparse_moe.experts.{}.", at, expert);
      writer.add(of + "w1.weight", {m.inner, m.hidden}, DType::bf16);
      writer.add(of + "w2.weight", {m.hidden, m.inner}, DType::bf16);
      writer.add(of + "w3.weight", {m.inner, m.hidden}, DType::bf16);
    }
  }
  writer.add("model.norm.weight", {m.hidden}, DType::bf16, 1);
  writer.add("lm_head.weight", {m.vocab, m.hidden}, DType::bf16);

  std::filesystem::create_directories(directory);
  writer.write(directory / "model.safetensors");
  std::ofstream(directory / "config.json") << config_text(m);
}

}  // namespace reap::test
