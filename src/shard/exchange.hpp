#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/dispatch.hpp"
#include "shard/link.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"

namespace reap {

/// Takes the rows of a block to the owners of their experts, and the experts' outputs back, in the group of expert
/// shards. Each layer of each step is one dispatch and one collect on every rank of the group, also on ranks without
/// rows.
class ExpertExchange {
 public:
  ExpertExchange(const Model& model, const Placement& placement, Backend& backend, Link& link);

  /// Sends rows of x to the owners of their experts and appends the rows that come from other shards to x.
  /// @param expert  host, [rows, top_k] ascending in each row
  /// @param x       [rows of the whole group, hidden] act, the first `rows` filled
  /// @return the slots that came, `row` being a row of x; valid until the next dispatch
  std::span<const SlotTag> all_dispatch(std::span<const std::int32_t> expert, std::int64_t rows, std::byte* x);

  /// Slots of the last dispatch that other shards compute.
  std::int64_t sent_slots() const { return slots_out_.back(); }

  /// Sends the outputs of the slots that came back to where they came from, and appends those of sent slots to f,
  /// norm and max_abs, from place `computed` on.
  /// @param came      host, place of each slot that came among the computed ones
  /// @param position  host, [rows, top_k] place of each own slot, -1 for sent ones: completed
  void all_collect(std::span<const std::int32_t> expert, std::span<const std::int32_t> came, std::int64_t computed,
                   std::byte* f, float* norm, float* max_abs, std::span<std::int32_t> position);

 private:
  using Starts = std::vector<std::int64_t>;  // [ep + 1] first item to or from each shard
  void all_count();

  std::int64_t experts_;
  std::int64_t top_k_;
  std::int64_t row_bytes_;
  int ep_;
  int self_;
  Backend& backend_;
  Link& link_;

  Starts one_each_;
  std::vector<Parcel> parcels_;  // to each shard
  Starts rows_out_, rows_in_, slots_out_, slots_in_;
  std::vector<SlotTag> tags_, came_;
  std::vector<std::int32_t> gathered_;  // rows of x in the order they leave
  Buffer<std::byte> rows_;              // rows that leave
  Buffer<float> norms_, maxima_;        // of slots that go back
};

}  // namespace reap
