#pragma once

#include <array>
#include <random>

#include "shard/saliency.hpp"

namespace reap {

/// Channels of the inputs in these tests, by InputKind.
constexpr std::array<std::int64_t, kInputKinds.size()> kInputWidths{3, 5, 3, 2};

/// Gives a table squares of inputs as a pass could have left them beside its fields.
inline void add_input_sums(Saliency& table, unsigned seed, decltype(kInputWidths) widths = kInputWidths) {
  std::mt19937 random(seed);
  const FieldTotals total = totals(table);
  for (const InputKind kind : kInputKinds) {
    const std::int64_t width = widths[static_cast<std::size_t>(kind)];
    Imatrix::Table& inputs = table.imatrix.at(kind) = {width, {}};
    const std::int64_t rows = is_per_expert(kind) ? table.experts : 1;
    for (std::int64_t at = 0; at < table.layers * rows; ++at) {
      const bool seen = !is_per_expert(kind) || total.count[static_cast<std::size_t>(at)] > 0;
      for (std::int64_t i = 0; i < kSquareDigits * width; ++i) {
        inputs.sums.push_back(seen ? static_cast<std::int64_t>(random()) : 0);
      }
    }
  }
}

}  // namespace reap
