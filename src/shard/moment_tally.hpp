#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"
#include "shard/comm.hpp"
#include "shard/input_moments.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"

namespace reap {

/// The moments of inputs of one rank while a run goes on: those of its blocks in its layers.
class MomentTally {
 public:
  /// @param collected  whether it sums anything
  MomentTally(const Model& model, const Range& layers, bool collected, Backend& backend);

  /// Where the moments of a layer are added.
  InputSums::Moments at(std::int64_t layer);

  /// @throws Error(numerics) naming the layer when an input was not finite or a moment out of range
  void check() const;

  /// The moments of all ranks, on top of those of `base`, on rank 0; those of others are empty. Collective.
  /// @throws Error(numerics) when a sum is out of range, and what check() throws
  InputMoments all_sum(const Comm& world, const InputMoments& base) const;

 private:
  struct Part {  // of a table
    std::int64_t width;
    Buffer<std::int64_t> sums;  // [layers of this rank, moment_count(width)]
  };
  const Part& part(InputKind kind) const { return parts_[static_cast<std::size_t>(kind)]; }
  std::vector<std::int64_t> download(InputKind kind, std::int64_t layer) const;

  Backend& backend_;
  Range layers_;
  std::int64_t model_layers_;
  std::vector<Part> parts_;   // by kMomentKinds; none when nothing is collected
  Buffer<std::int64_t> bad_;  // [layers of this rank]
};

}  // namespace reap
