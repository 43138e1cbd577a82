#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/moments.hpp"
#include "shard/imatrix.hpp"

namespace reap {

/// The inputs that have moments. Those of w1 and w3 are of all experts together: every token counts once, whichever
/// experts it has; and w2 has none.
constexpr std::array kMomentKinds{InputKind::attention, InputKind::output, InputKind::experts};

/// Second moments of the inputs of linear layers over all tokens (kernels/moments.hpp): what gptq makes up for errors
/// by.
struct InputMoments {
  struct Table {
    std::int64_t width = 0;          // channels
    std::vector<std::int64_t> sums;  // [layers, moment_count(width)]
    bool operator==(const Table&) const = default;
  };
  std::array<Table, kMomentKinds.size()> tables;  // all of them, or none

  bool operator==(const InputMoments&) const = default;
  bool empty() const { return tables[0].sums.empty(); }
  Table& at(InputKind kind) { return tables[static_cast<std::size_t>(kind)]; }
  const Table& at(InputKind kind) const { return tables[static_cast<std::size_t>(kind)]; }
};

/// @param layers  that the table has; the first is named `first_layer`
/// @throws Error(numerics) naming input and layer when a sum is out of range
void check_moment_range(const InputMoments::Table& table, InputKind kind, std::int64_t layers,
                        std::int64_t first_layer = 0);

}  // namespace reap
