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

const float* HeadForward::tile(const float* x, std::int64_t rows) {
  backend_.rms_norm(x, head_.norm.data(), model_.norm_eps, rows, model_.hidden, nullptr, normed_.data());
  backend_.matmul(normed_.data(), rows, *head_.projection, logits_.data(), false);
  return logits_.data();
}

void HeadForward::logits(const float* x, std::int64_t rows,
                         const std::function<void(std::int64_t first, std::int64_t rows, const float* logits)>& use) {
  for (std::int64_t first = 0; first < rows; first += kTileRows) {
    const std::int64_t count = std::min(kTileRows, rows - first);
    const float* const logits = tile(x + first * model_.hidden, count);
    backend_.synchronize();
    use(first, count, logits);
  }
}

}  // namespace reap
