#pragma once

#include <algorithm>
#include <cmath>
#include <random>

#include "shard/saliency.hpp"

namespace reap {

/// Gives a table sums over outputs as a pass could have left them beside its fields.
inline void add_output_sums(Saliency& table, unsigned seed, std::int64_t hidden) {
  std::mt19937 random(seed);
  const FieldTotals total = totals(table);
  const auto share = [&] { return static_cast<double>(random() % 1999) / 1000 - 0.999; };
  table.hidden = hidden;
  table.gram.assign(static_cast<std::size_t>(table.layers * pair_count(table.experts) * kDigits), 0);
  for (std::int64_t layer = 0; layer < table.layers; ++layer) {
    for (std::int64_t i = 0; i < table.experts; ++i) {
      const auto at = static_cast<std::size_t>(layer * table.experts + i);
      const auto& square = total.sum[static_cast<std::size_t>(Field::gate_norm_sq)];
      for (std::int64_t j = i; j < table.experts; ++j) {
        const double most = std::sqrt(square[at] * square[at + static_cast<std::size_t>(j - i)]);
        Digits digits{};
        to_signed_digits(i == j ? most : most * share(), kPairFractionBits, digits);
        normalise_signed(digits);
        std::ranges::copy(digits, table.gram.begin() + table.gram_index(layer, i, j));
      }
      const double most = static_cast<double>(total.count[at]) * total.max_abs[at];
      for (std::int64_t k = 0; k < hidden; ++k) {
        table.outputs.push_back(std::llrint(std::ldexp(most * share(), kOutputFractionBits)));
      }
    }
  }
}

}  // namespace reap
