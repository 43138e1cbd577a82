#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.hpp"
#include "shard/json.hpp"
#include "shard/safetensors.hpp"

namespace reap {

/// A directory of its own, removed at the end of the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "reap-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

inline std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
  return bytes;
}

/// A safetensors file, byte by byte: length, header as given, data.
inline std::string safetensors(std::string_view header, std::string_view data) {
  return little_endian(header.size()) + std::string(header) + std::string(data);
}

/// One U8 tensor of four bytes at the start of the data.
inline std::string bytes_tensor(std::string_view name) {
  return "\"" + std::string(name) + R"(":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
}

/// The action must throw an Error of that code whose text has all the words.
template <class Action>
void expect_error(ExitCode code, std::initializer_list<std::string_view> words, const Action& action) {
  try {
    action();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string_view word : words) {
      EXPECT_NE(std::string_view(error.what()).find(word), std::string_view::npos)
          << "no \"" << word << "\" in: " << error.what();
    }
  }
}

/// A small MiniMax-M2 model whose sizes all differ and leave partial FP8 blocks: 2 layers, 3 experts, top 2.
struct ToyModel {
  std::string config = R"({
  "model_type": "minimax_m2",
  "hidden_size": 130, "num_hidden_layers": 2, "vocab_size": 7, "rms_norm_eps": 1e-06,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "rotary_dim": 6, "rope_theta": 5000000,
  "use_qk_norm": true, "qk_norm_type": "per_layer", "attn_type_list": [1, 1], "sliding_window": null,
  "num_local_experts": 3, "num_experts_per_tok": 2, "intermediate_size": 5, "hidden_act": "silu",
  "scoring_func": "sigmoid", "use_routing_bias": true, "shared_intermediate_size": 0, "tie_word_embeddings": false,
  "num_mtp_modules": 1
})";
  std::vector<TensorInfo> tensors;

  explicit ToyModel(bool fp8 = false) {
    add("model.embed_tokens.weight", DType::bf16, {7, 130});
    add("model.norm.weight", DType::bf16, {130});
    add("lm_head.weight", DType::bf16, {7, 130});
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) add_layer(layer, fp8);
  }

  void add_layer(const std::string& layer, bool fp8) {
    add(layer + "input_layernorm.weight", DType::bf16, {130});
    add(layer + "post_attention_layernorm.weight", DType::f16, {130});
    add_matrix(layer + "self_attn.q_proj.weight", {40, 130}, fp8);
    add_matrix(layer + "self_attn.k_proj.weight", {20, 130}, fp8);
    add_matrix(layer + "self_attn.v_proj.weight", {20, 130}, fp8);
    add_matrix(layer + "self_attn.o_proj.weight", {130, 40}, fp8);
    add(layer + "self_attn.q_norm.weight", DType::bf16, {40});
    add(layer + "self_attn.k_norm.weight", DType::bf16, {20});
    add(layer + "block_sparse_moe.gate.weight", DType::f32, {3, 130});
    add(layer + "block_sparse_moe.e_score_correction_bias", DType::f32, {3});
    for (const std::string expert : {"0.", "1.", "2."}) {
      add_matrix(layer + "block_sparse_moe.experts." + expert + "w1.weight", {5, 130}, fp8);
      add_matrix(layer + "block_sparse_moe.experts." + expert + "w2.weight", {130, 5}, fp8);
      add_matrix(layer + "block_sparse_moe.experts." + expert + "w3.weight", {5, 130}, fp8);
    }
  }

  void add_matrix(const std::string& name, std::vector<std::int64_t> shape, bool fp8) {
    if (fp8) add(name + "_scale_inv", DType::f32, {(shape[0] + 127) / 128, (shape[1] + 127) / 128});
    add(name, fp8 ? DType::f8_e4m3 : DType::bf16, std::move(shape));
  }

  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape) {
    tensors.push_back({name, dtype, std::move(shape), 0, 0});
  }

  TensorInfo& at(std::string_view name) {
    for (TensorInfo& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    std::abort();
  }

  void remove(std::string_view name) {
    std::erase_if(tensors, [&](const TensorInfo& tensor) { return tensor.name == name; });
  }

  /// config.json and a single model.safetensors, its data a pattern that names neither tensor nor offset twice.
  void write(const std::filesystem::path& directory) {
    std::uint64_t total = 0;
    for (TensorInfo& tensor : tensors) {
      tensor.bytes = size_of(tensor.dtype);
      for (const std::int64_t size : tensor.shape) tensor.bytes *= static_cast<std::uint64_t>(size);
      total += tensor.bytes;
    }
    std::string data(total, '\0');
    std::uint32_t state = 1;
    for (char& byte : data) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<char>(state >> 24);
    }
    write_file(directory / "config.json", config);
    write_file(directory / "model.safetensors", safetensors_header_text(tensors) + data);
  }
};

}  // namespace reap
