#pragma once

#include <cstdint>
#include <optional>

#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"
#include "shard/layer.hpp"
#include "shard/model.hpp"
#include "shard/samples.hpp"

namespace reap {

/// The first hidden states of blocks: the embeddings of their tokens.
class InputBlock {
 public:
  /// @param max_rows  of the longest block
  InputBlock(const Checkpoint& checkpoint, const Model& model, const Samples& samples, Backend& backend,
             std::int64_t max_rows);

  /// Reads the whole embedding table. Without it, the rows of a block are read when the block is due.
  void hold_table();
  /// x = the embeddings of the block's tokens, [rows, hidden] of the backend.
  /// @throws Error(bad_input) when a token is not in the vocabulary
  void embed(const Block& block, float* x);

 private:
  const Checkpoint& checkpoint_;
  const Model& model_;
  const Samples& samples_;
  Backend& backend_;
  std::optional<Embedding> table_;
  Buffer<std::int32_t> tokens_;  // [max_rows] rows of the table
};

}  // namespace reap
