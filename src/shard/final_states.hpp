#pragma once

#include <cstdint>

#include "shard/hidden_states.hpp"
#include "shard/pipeline.hpp"

namespace reap {

/// What a model makes of samples before its final norm: the hidden states of the blocks that this rank takes through
/// the last layer, kept beyond the pass, so that another model's predictions can be compared with its own. In host
/// memory, or in a file in the scratch folder of the pass.
class FinalStates {
 public:
  /// @param plan  a pass whose blocks and placement the other model's pass has too
  /// @throws Error(io)
  FinalStates(const PassPlan& plan, Backend& backend);

  /// @param x  [rows of the block, hidden] of the backend
  void store(const Block& block, const float* x) { states_.store(place(block), x); }
  /// @param x  the same, in host memory
  void read(const Block& block, float* x) { states_.read(place(block), x); }

 private:
  std::size_t place(const Block& block) const { return static_cast<std::size_t>(block.index / columns_); }

  std::int64_t columns_;
  HiddenStates states_;
};

}  // namespace reap
