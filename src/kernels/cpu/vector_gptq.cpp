#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

// Rounding to 4 bits with feedback, a row of the weight per lane. Compiled without contraction: every product and every
// sum is rounded on its own, so that a row's bits do not depend on the width of the registers.
namespace reap::REAP_ISA {
namespace {

constexpr int kStep = 8;  // inputs that are worked on at a time: a word of codes
constexpr float kLowest = -8.0f;
constexpr float kHighest = 7.0f;
constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits

inline std::int64_t row_of(std::int64_t k) { return k * (k + 1) / 2; }

inline Vec clipped(Vec x) {
  x = x > kHighest ? splat(kHighest) : x;
  return x < kLowest ? splat(kLowest) : x;
}

}  // namespace

std::int64_t feedback_rows() { return kLanes; }

void round_with_feedback(const FeedbackTile& tile) {
  for (std::int64_t k = 0; k < tile.inputs; k += kStep) {
    Vec x[kStep];
    const float* factors[kStep];
    for (int step = 0; step < kStep; ++step) {
      x[step] = load(tile.weights + (k + step) * kLanes);
      factors[step] = tile.factors + row_of(k + step);
    }
    for (std::int64_t i = 0; i < k; ++i) {
      const Vec error = load(tile.errors + i * kLanes);
      for (int step = 0; step < kStep; ++step) x[step] += error * factors[step][i];
    }
    const Vec scale = load(tile.scales + k / tile.group * kLanes);
    UintVec word{};
    for (int step = 0; step < kStep; ++step) {
      for (int i = 0; i < step; ++i) x[step] += load(tile.errors + (k + i) * kLanes) * factors[step][k + i];
      const Vec shifted = clipped(x[step] / scale) + kWhole;
      const Vec weight = load(tile.weights + (k + step) * kLanes);
      store(tile.errors + (k + step) * kLanes, weight - (shifted - kWhole) * scale);
      word |= (reinterpret_cast<UintVec>(shifted - kLowest) & 15U) << (4 * step);
    }
    __builtin_memcpy(tile.words + k / kStep * kLanes, &word, sizeof word);
  }
}

}  // namespace reap::REAP_ISA
