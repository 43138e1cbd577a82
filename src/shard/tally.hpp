#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"
#include "shard/comm.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/saliency.hpp"
#include "shard/samples.hpp"

namespace reap {

/// The field sums of one rank while a run goes on: its layers, its blocks.
class Tally {
 public:
  Tally(const Model& model, const Range& layers, std::int64_t groups, Backend& backend);

  /// Adds the slots of one block in one layer, carries the digits, and checks that nothing was lost.
  /// @throws Error(numerics) naming layer, expert and sample when a value is not finite or out of range
  void add(std::int64_t layer, const BlockRows& block, const LayerTrace& trace);

  /// The sums of all ranks, normalised, on top of `base` (the same on every rank; empty = nothing). Each layer and
  /// block was added on exactly one rank, or is in the base. Collective.
  Saliency all_sum(const Comm& world, const Saliency& base = {}) const;

 private:
  void settle(std::int64_t layer, const BlockRows& block);
  [[noreturn]] void fail_slot(std::int64_t layer, const BlockRows& block, const LayerTrace& trace, std::int64_t slot);
  /// First cell of [layers of this rank, groups, experts].
  std::int64_t cell(std::int64_t layer, std::int64_t group) const {
    return ((layer - layers_.begin) * groups_ + group) * experts_;
  }

  Backend& backend_;
  Range layers_;
  std::int64_t model_layers_, groups_, experts_, top_k_;
  Buffer<std::int64_t> sums_;  // [layers of this rank, groups, experts, kSumsPerExpert]
  Buffer<float> max_abs_;      // [layers of this rank, groups, experts]
  Buffer<std::int64_t> bad_slot_;
  std::vector<std::int64_t> tokens_;  // [layers of this rank, groups] added
};

}  // namespace reap
