#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/squares.hpp"

namespace reap {

/// The inputs of a layer's linear layers.
enum class InputKind : std::uint8_t {
  attention,  // of q, k and v
  output,     // of o
  experts,    // of w1 and w3, per expert over its slots
  inner,      // of w2, likewise
};
constexpr std::array kInputKinds{InputKind::attention, InputKind::output, InputKind::experts, InputKind::inner};

/// "attention", "output", "experts", "inner".
std::string_view name_of(InputKind kind);
constexpr bool is_per_expert(InputKind kind) { return kind == InputKind::experts || kind == InputKind::inner; }

/// Sums of squares over all tokens per input channel, exact (squares.hpp): what weights are quantised by.
struct Imatrix {
  struct Table {
    std::int64_t width = 0;          // channels
    std::vector<std::int64_t> sums;  // [layers, experts where it is per expert, kSquareDigits, width]
    bool operator==(const Table&) const = default;
  };
  std::array<Table, kInputKinds.size()> tables;  // all of them, or none

  bool operator==(const Imatrix&) const = default;
  bool empty() const { return tables[0].sums.empty(); }
  Table& at(InputKind kind) { return tables[static_cast<std::size_t>(kind)]; }
  const Table& at(InputKind kind) const { return tables[static_cast<std::size_t>(kind)]; }
};

/// What a sum in canonical form is below, in whole units: room for those of 2^14 ranks in one digit.
constexpr std::int64_t kSquareSumEnd = std::int64_t{1} << 48;

/// Brings digits to canonical form: the low one in [0, 2^32), the high one in [0, kSquareSumEnd).
/// @param layers  that the table has; the first is named `first_layer`
/// @throws Error(numerics) naming input and layer when a sum is negative or out of range
void normalise_squares(Imatrix::Table& table, InputKind kind, std::int64_t layers, std::int64_t first_layer = 0);

/// Whether the digits of a row of channels, [kSquareDigits, width], are canonical.
bool canonical_squares(std::span<const std::int64_t> row);

/// A sum as a double, rounded once. @param row  [kSquareDigits, width], canonical
double square_sum(std::span<const std::int64_t> row, std::int64_t channel);

}  // namespace reap
