#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/saliency.hpp"
#include "shard/samples.hpp"
#include "shard/slot_watch.hpp"
#include "shard/summation.hpp"

namespace reap {

/// The field sums of one rank while a run goes on: its layers, its blocks.
class Tally {
 public:
  Tally(const Model& model, const Range& layers, std::int64_t groups, Backend& backend);

  /// Adds the slots of one block in one layer.
  /// @throws Error(numerics) naming layer, expert and sample when a value is not finite or out of range: of this call,
  /// or
  ///         of one before. Before a block leaves the last of the layers all has been looked at.
  void add(std::int64_t layer, const BlockRows& block, const LayerTrace& trace);

  /// The sums of all ranks, normalised, on top of `base` (the same on every rank; empty = nothing). Each layer and
  /// block was added on exactly one rank, or is in the base. Collective.
  /// @throws Error(numerics) as add() does, and when a sum is out of range
  Saliency all_sum(Summation& summation, const Saliency& base = {});

 private:
  void look();
  void carry(std::int64_t layer);
  void check_counts(const Saliency& own) const;
  /// First cell of [layers of this rank, groups, experts].
  std::int64_t cell(std::int64_t layer, std::int64_t group) const {
    return ((layer - layers_.begin) * groups_ + group) * experts_;
  }

  std::int64_t tokens(std::int64_t layer, std::int64_t group) const {
    return tokens_[static_cast<std::size_t>((layer - layers_.begin) * groups_ + group)];
  }
  std::int64_t& tokens(std::int64_t layer, std::int64_t group) {
    return tokens_[static_cast<std::size_t>((layer - layers_.begin) * groups_ + group)];
  }

  Backend& backend_;
  Range layers_;
  std::int64_t model_layers_, groups_, experts_, top_k_;
  Buffer<std::int64_t> sums_;  // [layers of this rank, groups, experts, kSumsPerExpert]
  Buffer<float> max_abs_;      // [layers of this rank, groups, experts]
  SlotWatch watch_;
  std::vector<std::int64_t> tokens_;   // [layers of this rank, groups] added
  std::vector<std::int64_t> carried_;  // [layers of this rank] tokens added since digits were last carried
};

}  // namespace reap
