#include "shard/masks.hpp"

#include <limits>

namespace reap {

ExpertMasks::ExpertMasks(const std::vector<KeptExperts>& variants, const Range& layers, std::int64_t experts,
                         Backend& backend)
    : variants_{variants},
      layers_{layers},
      experts_{experts},
      backend_{backend},
      masked_(variants.size() * static_cast<std::size_t>(layers.size())) {}

const float* ExpertMasks::gate_bias(std::int64_t variant, std::int64_t layer, const LayerWeights& weights) {
  const KeptExperts& kept = variants_[static_cast<std::size_t>(variant)];
  if (kept.empty()) return weights.gate_bias.data();
  Buffer<float>& masked = masked_[static_cast<std::size_t>(variant * layers_.size() + layer - layers_.begin)];
  if (masked.size() > 0) return masked.data();

  const std::size_t bytes = static_cast<std::size_t>(experts_) * sizeof(float);
  std::vector<float> whole(static_cast<std::size_t>(experts_));
  std::vector<float> bias(whole.size(), -std::numeric_limits<float>::infinity());
  backend_.download(whole.data(), weights.gate_bias.data(), bytes);
  backend_.synchronize();
  for (const std::int32_t expert : kept[static_cast<std::size_t>(layer)]) {
    bias[static_cast<std::size_t>(expert)] = whole[static_cast<std::size_t>(expert)];
  }
  masked = {backend_.memory(), experts_};
  backend_.upload(masked.data(), bias.data(), bytes);
  return masked.data();
}

}  // namespace reap
