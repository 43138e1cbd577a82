#pragma once

#include <memory>
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
LayerWeights load_layer(const Checkpoint& checkpoint, const Model& model, std::int64_t layer, const Range& experts,
                        Backend& backend);

/// The embedding table as stored.
struct Embedding {
  Buffer<std::byte> table;  // [vocab, hidden] of dtype
  DType dtype;
};
Embedding load_embedding(const Checkpoint& checkpoint, const Model& model, Backend& backend);

/// Final norm and output projection.
struct Head {
  Buffer<float> norm;                  // [hidden]
  std::unique_ptr<Weight> projection;  // [vocab, hidden]
};
Head load_head(const Checkpoint& checkpoint, const Model& model, Backend& backend);

}  // namespace reap
