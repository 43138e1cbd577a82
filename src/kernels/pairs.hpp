#pragma once

#include <cstdint>

namespace reap {

// The pairs i <= j of n items, as the upper triangle of a matrix, row by row.

constexpr std::int64_t pair_count(std::int64_t items) { return items * (items + 1) / 2; }

constexpr std::int64_t pair_index(std::int64_t i, std::int64_t j, std::int64_t items) {
  return i * (2 * items - i - 1) / 2 + j;
}

/// Bits behind the binary point of a sum of g_i g_j <f_i, f_j>: signed Q79.48.
constexpr int kPairFractionBits = 48;

/// Bits behind the binary point of a sum of an output's elements: Q31.32 in one int64.
constexpr int kOutputFractionBits = 32;

}  // namespace reap
