#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"

namespace reap {

/// One decoder layer's weights on a device: the attention and router whole, the experts of one shard.
struct LayerWeights {
  Buffer<float> input_norm, post_norm;  // [hidden]
  Buffer<float> q_norm, k_norm;         // [heads * head_dim], [kv_heads * head_dim]
  std::unique_ptr<Weight> q, k, v, o;
  std::unique_ptr<Weight> gate;            // [experts, hidden], fp32
  Buffer<float> gate_bias;                 // [experts]
  std::vector<std::unique_ptr<Weight>> w;  // owns w1, w3, w2 of the shard's experts
  std::vector<ExpertWeights> experts;      // [shard's experts]
  std::int64_t bytes() const;
};

/// Reads and lays out layer `layer`. Reads only this shard's experts.
/// @param before  told of the bytes of every piece (attention and router, then each expert) before it is read, as
///                stored; may wait until there is room, or throw; may be empty
LayerWeights load_layer(const Checkpoint& checkpoint, const Model& model, std::int64_t layer, const Range& experts,
                        Backend& backend, const std::function<void(std::int64_t bytes)>& before = {});

/// The embedding table as stored, or some of its rows.
struct Embedding {
  Buffer<std::byte> table;  // [rows, hidden] of dtype
  DType dtype;
};
Embedding load_embedding(const Checkpoint& checkpoint, const Model& model, Backend& backend);

/// Only the rows of `tokens`, one after the other. The tokens are in [0, vocab): the caller checks.
Embedding load_embedding_rows(const Checkpoint& checkpoint, const Model& model, std::span<const std::int32_t> tokens,
                              Backend& backend);

/// Final norm and output projection.
struct Head {
  Buffer<float> norm;                  // [hidden]
  std::unique_ptr<Weight> projection;  // [vocab, hidden]
};
Head load_head(const Checkpoint& checkpoint, const Model& model, Backend& backend);

}  // namespace reap
