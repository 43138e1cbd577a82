#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"
#include "shard/comm.hpp"
#include "shard/imatrix.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"

namespace reap {

/// The channels of an input.
std::int64_t width_of(InputKind kind, const Model& model);

/// The sums of squared inputs of one rank while a run goes on: its layers; of attention those of its blocks, of experts
/// those of its own, for the blocks of all ranks of its group.
class InputTally {
 public:
  /// @param collected  whether it sums anything
  InputTally(const Model& model, const Placement& placement, bool collected, Backend& backend);

  /// Where the squares of the next block in a layer are added.
  /// @param rows  of the longest block
  InputSums at(std::int64_t layer, std::int64_t rows);

  /// @throws Error(numerics) naming the layer when a square was not finite or out of range
  void check() const;

  /// The sums of all ranks, on top of those of `base`, on rank 0; those of others are empty. Collective.
  /// @throws Error(numerics) when a sum is out of range, and what check() throws
  Imatrix all_sum(const Comm& world, const Imatrix& base) const;

 private:
  struct Part {  // of a table
    std::int64_t width;
    Range rows;                 // experts of this rank, or the only one
    std::int64_t all_rows;      // of all ranks
    Buffer<std::int64_t> sums;  // [layers of this rank, rows, kSquareDigits, width]
    std::int64_t layer_size() const { return rows.size() * kSquareDigits * width; }
  };
  const Part& part(InputKind kind) const { return parts_[static_cast<std::size_t>(kind)]; }
  Imatrix::Table download(InputKind kind, std::int64_t layer) const;
  void carry(std::int64_t layer);

  Backend& backend_;
  Range layers_;
  std::int64_t model_layers_, group_;
  std::vector<Part> parts_;         // by InputKind; none when nothing is collected
  Buffer<std::int64_t> bad_;        // [layers of this rank]
  std::vector<std::int64_t> rows_;  // [layers of this rank] added since digits were last carried
};

}  // namespace reap
