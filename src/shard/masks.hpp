#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/layer.hpp"
#include "shard/placement.hpp"

namespace reap {

/// The experts that each layer keeps, [layers] ascending; empty = all of them.
using KeptExperts = std::vector<std::vector<std::int32_t>>;

/// Makes a model behave as if it were pruned: an expert that is not kept is chosen by no token, because minus infinity
/// is added to its score. The others are chosen, weighted and summed exactly as they are in the pruned checkpoint.
class ExpertMasks {
 public:
  /// @param layers  of this rank
  ExpertMasks(const std::vector<KeptExperts>& variants, const Range& layers, std::int64_t experts, Backend& backend);

  /// [experts] what a variant adds to the scores in one layer.
  const float* gate_bias(std::int64_t variant, std::int64_t layer, const LayerWeights& weights);

 private:
  const std::vector<KeptExperts>& variants_;
  Range layers_;
  std::int64_t experts_;
  Backend& backend_;
  std::vector<Buffer<float>> masked_;  // [variants, layers of this rank] made when they are asked for
};

}  // namespace reap
