#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"

namespace reap {

/// The slots that a rank's sums could not take. The device notes the first one, and the host asks for it now and then:
/// waiting for the device after every layer would leave it without work.
class SlotWatch {
 public:
  SlotWatch(Backend& backend, std::int64_t top_k);

  /// Where accumulate() and accumulate_pairs() say so.
  std::int64_t* bad_slot() const { return bad_slot_.data(); }
  /// They were told to add the slots of `block` in `layer`.
  void added(std::int64_t layer, const BlockRows& block, const LayerTrace& trace);
  /// Whether it is time to look: layers or blocks have gone by that nobody has looked at.
  bool long_unseen() const { return unseen_.size() >= kMostUnseen; }

  struct Found {
    std::int64_t layer, sample, token;  // the token's place in its sample
    std::int32_t group;
    BadSlot slot;
  };
  /// Waits for what was added. @return the first slot that could not be
  std::optional<Found> look();

 private:
  static constexpr std::size_t kMostUnseen = 64;

  /// A block in a layer: all that tells where a slot of it belongs.
  struct Added {
    Added(std::int64_t in_layer, std::int64_t first, std::vector<std::int64_t> first_rows)
        : layer{in_layer}, first_sample{first}, start{std::move(first_rows)} {}
    std::int64_t layer, first_sample;
    std::vector<std::int64_t> start;  // [samples + 1] first row of each sample
    std::vector<std::int32_t> group;  // [samples]
  };

  Backend& backend_;
  std::int64_t top_k_;
  Buffer<std::int64_t> bad_slot_;
  Buffer<BadSlot> record_;
  std::vector<Added> unseen_;
};

}  // namespace reap
