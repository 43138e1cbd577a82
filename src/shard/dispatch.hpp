#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shard/placement.hpp"

namespace reap {

/// A slot on its way to the owner of its expert.
struct SlotTag {
  std::int32_t row;     // among the rows of the same parcel
  std::int32_t expert;  // in the model
};

/// What one expert shard is to compute for another: each row once, however many of its slots go there.
struct Parcel {
  std::vector<std::int32_t> rows;  // of the sender's block, ascending
  std::vector<SlotTag> slots;      // by row, then by expert
};

/// Sorts the slots of a block by the shard that owns their expert. Nothing is sent to shard `self`.
/// @param expert  [rows, top_k] ascending in each row
/// @return [ep] one parcel per shard
std::vector<Parcel> make_parcels(std::span<const std::int32_t> expert, std::int64_t top_k, std::int64_t experts, int ep,
                                 int self);

/// Completes `position`, which group_slots has left at -1 for slots of other shards: these results come back in the
/// order of the parcels, from place `first` on.
/// @param position  [rows, top_k]
void place_returned(std::span<const std::int32_t> expert, const std::vector<Parcel>& parcels, std::int64_t experts,
                    std::int64_t first, std::span<std::int32_t> position);

}  // namespace reap
