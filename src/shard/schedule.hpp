#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shard/placement.hpp"
#include "shard/samples.hpp"

namespace reap {

/// Which blocks each column of the grid takes through the layers, and in which order: the same on every rank. In each
/// step every column has at most one block; the steps of a wave go through a layer before the next layer's weights are
/// needed.
class Schedule {
 public:
  struct Wave {
    std::int64_t first = 0, last = 0;  // steps [first, last)
  };

  /// Deals the blocks that are not done to the columns in turn. A block goes through the model in each variant, in as
  /// many steps one after the other: a block of the schedule is one of one variant, numbered block * variants +
  /// variant.
  /// @param next_layer  [blocks, variants] the layer that each begins or goes on with; `layers` = done
  /// @param wave_rows   the most rows that a column has in a wave, unless a single step has more; 0 = a step a wave
  Schedule(const std::vector<Block>& blocks, std::int64_t variants, std::span<const std::int64_t> next_layer,
           std::int64_t layers, int columns, std::int64_t wave_rows);

  std::int64_t steps() const {
    return static_cast<std::int64_t>(places_.size() / static_cast<std::size_t>(columns_)) * variants_;
  }
  const std::vector<Wave>& waves() const { return waves_; }

  static constexpr std::int64_t kNone = -1;
  /// The block of a column in a step, or kNone.
  std::int64_t block(std::int64_t step, int column) const {
    const std::int64_t place = places_[static_cast<std::size_t>(step / variants_ * columns_ + column)];
    return place == kNone ? kNone : place * variants_ + step % variants_;
  }
  /// The layer that a block begins with.
  std::int64_t first_layer(std::int64_t block) const { return first_layer_[static_cast<std::size_t>(block)]; }
  /// Whether any of the columns [columns.begin, columns.end) has a block that goes through `layer` in this step.
  bool runs(std::int64_t step, std::int64_t layer, const Range& columns) const;
  bool runs(const Wave& wave, std::int64_t layer, const Range& columns) const;

 private:
  int columns_;
  std::int64_t variants_;
  std::vector<std::int64_t> first_layer_;  // [blocks, variants]
  std::vector<std::int64_t> places_;       // [steps / variants, columns] in `blocks`
  std::vector<Wave> waves_;
};

}  // namespace reap
