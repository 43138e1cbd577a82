#pragma once

#include <cstdint>

#include "kernels/backend.hpp"

namespace reap {

/// Bytes that the CPU backend takes, computed without taking any, so that memory can be planned. Not counted are its
/// tables of packing orders: 4 bytes for each element of a panel of 256 rows of each shape of weight.
struct CpuFootprint {
  Compute compute;
  CpuIsa isa;  // automatic = the newest of this machine, which is settled by asking
  int threads;

  /// A weight of that type and shape as the backend holds it, packed for products in `precision`.
  std::int64_t weight(DType stored, std::int64_t rows, std::int64_t cols, Compute precision) const;

  /// What a backend comes to hold between calls, for all threads, and during a call: for the experts between their two
  /// layers of products, for tiles, expanded panels, attention and rotary angles.
  struct Layer {
    std::int64_t hidden, inner;
    AttentionShape attention;
    DType stored;            // of projections and experts
    std::int64_t experts;    // of one call
    std::int64_t slots;      // of one call
    std::int64_t positions;  // of the longest sample
  };
  std::int64_t working(const Layer& layer) const;
};

}  // namespace reap
