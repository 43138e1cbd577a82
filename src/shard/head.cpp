#include "shard/head.hpp"

#include <algorithm>

namespace reap {

HeadForward::HeadForward(const Model& model, const Head& head, Backend& backend)
    : model_{model},
      head_{head},
      backend_{backend},
      normed_{backend.memory(),
              kTileRows * model.hidden * static_cast<std::int64_t>(size_of(activation_dtype(backend.compute())))},
      logits_{backend.memory(), kTileRows * model.vocab} {}

void HeadForward::logits(const float* x, std::int64_t rows,
                         const std::function<void(std::int64_t first, std::int64_t rows, const float* logits)>& use) {
  for (std::int64_t first = 0; first < rows; first += kTileRows) {
    const std::int64_t tile = std::min(kTileRows, rows - first);
    backend_.rms_norm(x + first * model_.hidden, head_.norm.data(), model_.norm_eps, tile, model_.hidden, nullptr,
                      normed_.data());
    backend_.matmul(normed_.data(), tile, *head_.projection, logits_.data(), false);
    backend_.synchronize();
    use(first, tile, logits_.data());
  }
}

}  // namespace reap
