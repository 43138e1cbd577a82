#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/exchange.hpp"
#include "shard/layer.hpp"
#include "shard/link.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/samples.hpp"

namespace reap {

/// The rows of a block as the operations want them: the position of each in its sample, and its group.
class BlockRows {
 public:
  /// @param max_rows  of the longest block of the run
  BlockRows(Backend& backend, std::int64_t max_rows);

  void set(const Samples& samples, const Block& block);
  void clear();  // a step without a block

  std::int64_t rows() const { return static_cast<std::int64_t>(host_group_.size()); }
  std::int64_t first_sample() const { return first_sample_; }
  std::span<const std::int64_t> start() const { return start_; }  // [samples + 1] first row of each sample
  const std::int32_t* position() const { return position_.data(); }
  const std::int32_t* group() const { return group_.data(); }
  std::span<const std::int32_t> host_group() const { return host_group_; }
  /// The sample (in the whole run) that a row belongs to.
  std::int64_t sample_of(std::int64_t row) const;
  std::int64_t offset_in_sample(std::int64_t row) const { return host_position_[static_cast<std::size_t>(row)]; }

 private:
  Backend& backend_;
  std::int64_t first_sample_ = 0;
  std::vector<std::int64_t> start_{0};
  std::vector<std::int32_t> host_position_;
  std::vector<std::int32_t> host_group_;
  Buffer<std::int32_t> position_, group_;  // [max_rows]
};

/// What a layer has just computed for one block, in the backend's memory; valid until the next layer.
struct LayerTrace {
  const float* moe_input;        // [rows, hidden]
  const float* logits;           // [rows, experts] the router's, before the sigmoid
  const std::int32_t* expert;    // [rows, top_k] ascending
  const float* gate_value;       // [rows, top_k]
  const std::int32_t* position;  // [rows, top_k] where norm and max_abs of each slot lie
  const float* norm;             // by position: ||f||_2
  const float* max_abs;          // by position: max |f|
  const std::byte* f;            // by position: [hidden] act
};

/// Where squares of a layer's inputs are added, of experts those of this rank; and where their moments are.
struct InputSums {
  SquareSums attention, output, experts, inner;  // by InputKind (imatrix.hpp)
  struct Moments {
    MomentSums attention, output, experts;  // of rows, whichever experts they go to
  };
  Moments moments = {};
};

/// The forward pass of decoder layers over blocks, one at a time. Holds the working memory of the largest block.
class BlockForward {
 public:
  BlockForward(const Model& model, const Placement& placement, Backend& backend, Link& link, std::int64_t max_rows);

  /// x <- x + Attention(RMSNorm(x)); x <- x + MoE(RMSNorm(x)). All ranks of an expert group call it together, those
  /// without a block with zero rows.
  /// @param gate_bias  [experts] added to the scores that experts are chosen by
  /// @param sums       on every rank of the group, or on none
  LayerTrace all_layer(const LayerWeights& weights, const float* gate_bias, const BlockRows& block, float* x,
                       const InputSums& sums = {});

 private:
  void attention(const LayerWeights& weights, const BlockRows& block, const InputSums& sums, float* x);
  void accumulate_moments(const Buffer<std::byte>& x, std::int64_t rows, std::int64_t width, const MomentSums& to);
  void route(const LayerWeights& weights, const float* gate_bias, std::int64_t rows, const float* x);
  void own_experts(const LayerWeights& weights, std::int64_t rows, const InputSums& sums);
  void all_group_experts(const LayerWeights& weights, std::int64_t rows, const InputSums& sums);
  std::int64_t group(std::int64_t slots);
  void compute_experts(const LayerWeights& weights, std::int64_t returned, const InputSums& sums);

  const Model& model_;
  const Placement& placement_;
  Backend& backend_;
  Link& link_;
  ExpertExchange exchange_;
  std::int64_t q_width_, kv_width_;
  std::int64_t act_bytes_;  // of one element

  // [max_rows, width of each]
  Buffer<std::byte> attention_in_, attention_out_, q_act_, k_act_, v_act_;
  Buffer<float> q_, k_, v_, moe_input_, logits_, gate_value_;
  Buffer<std::byte> expert_in_;  // [max_rows of every rank of the group, hidden]
  // By slot or by grouped place; with expert shards, slots that came from others follow the own ones.
  Buffer<std::int32_t> expert_, position_, order_, row_;
  Buffer<std::byte> f_;
  Buffer<float> norm_, max_abs_;
  std::vector<std::int64_t> start_;  // [own experts + 1]
  std::vector<std::int32_t> host_expert_, host_position_, host_row_;
};

}  // namespace reap
