#pragma once

#include <cstdint>
#include <functional>

#include "kernels/backend.hpp"
#include "shard/layer.hpp"
#include "shard/model.hpp"

namespace reap {

/// Logits of hidden states: final norm and output projection, a tile of rows at a time, so that memory stays bounded
/// whatever the length of the block.
class HeadForward {
 public:
  static constexpr std::int64_t kTileRows = 128;

  HeadForward(const Model& model, const Head& head, Backend& backend);

  /// The logits of up to kTileRows rows of x, [rows, hidden], in the backend's memory until the next call.
  const float* tile(const float* x, std::int64_t rows);

  /// Calls `use` for tile after tile of x, [rows, hidden].
  /// @param use  given the first row of the tile, its rows, and logits [tile rows, vocab] in the backend's memory
  void logits(const float* x, std::int64_t rows,
              const std::function<void(std::int64_t first, std::int64_t rows, const float* logits)>& use);

 private:
  const Model& model_;
  const Head& head_;
  Backend& backend_;
  Buffer<std::byte> normed_;  // [kTileRows, hidden] act
  Buffer<float> logits_;      // [kTileRows, vocab]
};

}  // namespace reap
