#include "shard/slot_watch.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace reap {

SlotWatch::SlotWatch(Backend& backend, std::int64_t top_k)
    : backend_{backend}, top_k_{top_k}, bad_slot_{backend.memory(), 1}, record_{backend.memory(), 1} {
  const BadSlot none;
  backend.upload(bad_slot_.data(), &none.slot, sizeof none.slot);
  backend.upload(record_.data(), &none, sizeof none);
}

void SlotWatch::added(std::int64_t layer, const BlockRows& block, const LayerTrace& trace) {
  backend_.record_bad_slot(bad_slot_.data(), static_cast<std::int64_t>(unseen_.size()), trace.expert, trace.gate_value,
                           trace.norm, trace.position, record_.data());
  const std::span<const std::int64_t> start = block.start();
  Added& added = unseen_.emplace_back(layer, block.first_sample(), std::vector(start.begin(), start.end()));
  for (const std::int64_t first : start.first(start.size() - 1)) {
    added.group.push_back(first < block.rows() ? block.host_group()[static_cast<std::size_t>(first)] : 0);
  }
}

std::optional<SlotWatch::Found> SlotWatch::look() {
  if (unseen_.empty()) return std::nullopt;
  BadSlot slot;
  backend_.download(&slot, record_.data(), sizeof slot);
  backend_.synchronize();
  const std::vector<Added> seen = std::exchange(unseen_, {});
  if (slot.slot == BadSlot::kNone) return std::nullopt;
  const Added& added = seen.at(static_cast<std::size_t>(slot.call));
  const std::int64_t row = slot.slot / top_k_;
  const auto sample = std::upper_bound(added.start.begin(), added.start.end(), row) - added.start.begin() - 1;
  const auto at = static_cast<std::size_t>(sample);
  return Found{added.layer, added.first_sample + sample, row - added.start[at], added.group[at], slot};
}

}  // namespace reap
