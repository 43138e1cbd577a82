#pragma once

#include <cstdint>

namespace reap {

// Exact sums of squared activations, per input of a layer (docs/numerics.md): two digits of int64, low and high, in
// units of kSquareFractionBits. Each square adds at most 2^31 to the magnitude of the one and 2^32 to the other.

constexpr int kSquareDigits = 2;

/// A square has to be below.
constexpr double kSquareLimit = 0x1p32;

/// Where the squares of some groups of rows are added; sums = null: nowhere.
struct SquareSums {
  std::int64_t* sums = nullptr;  // [groups, kSquareDigits, width] +=
  std::int64_t* bad = nullptr;   // [1] raised to 1 when a square is not finite or out of range; such a one is not added
};

}  // namespace reap
