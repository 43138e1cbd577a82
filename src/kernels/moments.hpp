#pragma once

#include <cstdint>

namespace reap {

/// Second moments of the input of a linear layer: sums of x_i x_j over tokens, for pairs of channels within blocks of
/// this many. An error of rounding one input's weights is made up for within its block (gptq.hpp).
constexpr std::int64_t kMomentBlock = 1024;

/// Moments are sums of multiples of 2^-kMomentFractionBits, in one 64-bit integer each.
constexpr int kMomentFractionBits = 20;
/// What a sum is below, in such units.
constexpr std::int64_t kMomentEnd = std::int64_t{1} << 61;

/// Numbers of a symmetric table of `size` rows, of which the lower triangle is kept, row by row.
constexpr std::int64_t triangle(std::int64_t size) { return size * (size + 1) / 2; }

/// Numbers of an input of `width` channels: the triangles of its blocks, one after the other.
constexpr std::int64_t moment_count(std::int64_t width) {
  return width / kMomentBlock * triangle(kMomentBlock) + triangle(width % kMomentBlock);
}

/// Where moments of an input are added.
struct MomentSums {
  std::int64_t* sums = nullptr;  // [moment_count(width)] +=
  std::int64_t* bad = nullptr;   // [1] becomes 1 when a term was not finite or a sum would leave the range
};

}  // namespace reap
