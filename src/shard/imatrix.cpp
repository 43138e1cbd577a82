#include "shard/imatrix.hpp"

#include <cmath>

#include "kernels/check.hpp"
#include "kernels/fixed128.hpp"

namespace reap {
namespace {

constexpr std::int64_t kLowEnd = std::int64_t{1} << kSquareFractionBits;

std::size_t width_of(std::span<const std::int64_t> row) { return row.size() / kSquareDigits; }

/// Carries a row of channels. @return false when a sum is negative or out of range
bool carry(std::span<std::int64_t> row) {
  const std::size_t width = width_of(row);
  bool fits = true;
  for (std::size_t i = 0; i < width; ++i) {
    std::int64_t& high = row[width + i];
    high += row[i] >> kSquareFractionBits;  // downwards, also of a negative one
    row[i] &= kLowEnd - 1;
    fits = fits && high >= 0 && high < kSquareSumEnd;
  }
  return fits;
}

}  // namespace

std::string_view name_of(InputKind kind) {
  constexpr std::array<std::string_view, kInputKinds.size()> kNames{"attention", "output", "experts", "inner"};
  return kNames[static_cast<std::size_t>(kind)];
}

void normalise_squares(Imatrix::Table& table, InputKind kind, std::int64_t layers, std::int64_t first_layer) {
  const auto row = static_cast<std::size_t>(kSquareDigits * table.width);
  for (std::size_t at = 0; at < table.sums.size(); at += row) {
    if (carry(std::span(table.sums).subspan(at, row))) continue;
    const std::size_t rows = table.sums.size() / row / static_cast<std::size_t>(layers);
    fail(ExitCode::numerics,
         "layer {}: a sum of squares of input '{}' is negative or beyond 2^48; collect no imatrix (--collect)",
         first_layer + static_cast<std::int64_t>(at / row / rows), name_of(kind));
  }
}

bool canonical_squares(std::span<const std::int64_t> row) {
  const std::size_t width = width_of(row);
  for (std::size_t i = 0; i < width; ++i) {
    if (row[i] < 0 || row[i] >= kLowEnd || row[width + i] < 0 || row[width + i] >= kSquareSumEnd) return false;
  }
  return true;
}

double square_sum(std::span<const std::int64_t> row, std::int64_t channel) {
  const auto at = static_cast<std::size_t>(channel);
  return static_cast<double>(row[width_of(row) + at]) + std::ldexp(static_cast<double>(row[at]), -kSquareFractionBits);
}

}  // namespace reap
