#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/saliency.hpp"
#include "shard/slot_watch.hpp"
#include "shard/summation.hpp"

namespace reap {

/// The sums over experts' outputs of one rank while a run goes on, those that are collected: its layers, its blocks.
class OutputTally {
 public:
  OutputTally(const Model& model, const Range& layers, const Collected& collected, Backend& backend);

  /// Adds the slots of one block in one layer. @throws Error(numerics) naming layer, expert and sample when a term is
  /// not finite or out of range: of this call, or of one before, as Tally::add()
  void add(std::int64_t layer, const BlockRows& block, const LayerTrace& trace);

  /// Puts the sums of all ranks, on top of those of `base`, into `total` on rank 0. Each layer and block was added on
  /// exactly one rank, or is in the base. Collective.
  /// @param total  with the fields of all ranks, by which the range of outputs is checked
  /// @throws Error(numerics) when a sum is out of range
  void all_sum(Summation& summation, const Saliency& base, Saliency& total);

 private:
  void look();
  void carry(std::int64_t layer);
  /// The sums of a layer, [size] of `sums`, of all ranks on rank 0.
  std::vector<std::int64_t> all_sum_layer(Summation& summation, std::int64_t layer, const Buffer<std::int64_t>& sums,
                                          std::int64_t size, const std::vector<std::int64_t>& base) const;

  Backend& backend_;
  Range layers_;
  std::int64_t model_layers_, experts_, top_k_, hidden_;
  Collected collected_;
  Buffer<std::int64_t> gram_;     // [layers of this rank, pair_count(experts), kDigits]
  Buffer<std::int64_t> outputs_;  // [layers of this rank, experts, hidden]
  SlotWatch watch_;
  std::vector<std::int64_t> rows_;  // [layers of this rank] added since digits were last carried
};

}  // namespace reap
