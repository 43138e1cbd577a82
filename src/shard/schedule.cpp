#include "shard/schedule.hpp"

#include <algorithm>

namespace reap {

Schedule::Schedule(const std::vector<Block>& blocks, std::int64_t variants, std::span<const std::int64_t> next_layer,
                   std::int64_t layers, int columns, std::int64_t wave_rows)
    : columns_{columns}, variants_{variants}, first_layer_(next_layer.begin(), next_layer.end()) {
  const auto in_all = static_cast<std::size_t>(variants);
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    const auto of_block = next_layer.subspan(block * in_all, in_all);
    if (std::ranges::min(of_block) < layers) places_.push_back(static_cast<std::int64_t>(block));
  }
  const auto width = static_cast<std::size_t>(columns);
  places_.resize((places_.size() + width - 1) / width * width, kNone);

  std::vector<std::int64_t> rows(width);  // of the wave so far, by column
  for (std::int64_t step = 0; step < steps(); ++step) {
    bool fits = !waves_.empty();
    for (int column = 0; column < columns; ++column) {
      const std::int64_t place = block(step, column);
      auto& sum = rows[static_cast<std::size_t>(column)];
      if (place != kNone) sum += blocks[static_cast<std::size_t>(place / variants)].rows();
      fits = fits && sum <= wave_rows;
    }
    if (fits) {
      ++waves_.back().last;
      continue;
    }
    waves_.push_back({step, step + 1});
    for (int column = 0; column < columns; ++column) {
      const std::int64_t place = block(step, column);
      rows[static_cast<std::size_t>(column)] =
          place == kNone ? 0 : blocks[static_cast<std::size_t>(place / variants)].rows();
    }
  }
}

bool Schedule::runs(std::int64_t step, std::int64_t layer, const Range& columns) const {
  for (std::int64_t column = columns.begin; column < columns.end; ++column) {
    const std::int64_t place = block(step, static_cast<int>(column));
    if (place != kNone && first_layer(place) <= layer) return true;
  }
  return false;
}

bool Schedule::runs(const Wave& wave, std::int64_t layer, const Range& columns) const {
  for (std::int64_t step = wave.first; step < wave.last; ++step) {
    if (runs(step, layer, columns)) return true;
  }
  return false;
}

}  // namespace reap
