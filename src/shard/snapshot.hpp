#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "shard/saliency.hpp"
#include "shard/samples.hpp"

namespace reap {

/// A calibration pass at a cut between two operations, in terms that hold on every grid: each block has been through
/// the layers before its next one, `saliency` is the sum over just these blocks and layers, and blocks inside the model
/// have hidden states.
struct Snapshot {
  Saliency saliency;                     // normalised
  std::vector<std::int64_t> next_layer;  // [blocks] 0 = not begun, layers = done
};

/// The hidden states of a block inside the model, which one rank has: the input of its next layer.
struct HeldBlock {
  std::int64_t block = 0;
  std::int64_t rows = 0;
  std::function<void(float* x)> read;  // [rows, hidden] into host memory
};

/// Where a pass begins, or goes on.
struct StartingPoint {
  Snapshot snapshot;  // empty saliency and next_layer: at the beginning
  /// Reads the hidden states of a block inside the model, [rows, hidden], into host memory.
  std::function<void(std::int64_t block, float* x)> read_hidden;
};

}  // namespace reap
