#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace reap::REAP_ISA {
namespace {

/// Sum of squares in 32 lanes (element i in lane i mod 32) and a tree over them: the same order for every build.
float sum_of_squares(const float* x, std::int64_t count) {
  constexpr int kSumLanes = 32;
  alignas(64) float lanes[kSumLanes] = {};
  Vec sum[kSumLanes / kLanes] = {};
  std::int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) {
    for (int part = 0; part < kSumLanes / kLanes; ++part) {
      const Vec value = load(x + i + part * kLanes);
      sum[part] += value * value;
    }
  }
  for (int part = 0; part < kSumLanes / kLanes; ++part) store(lanes + part * kLanes, sum[part]);
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] = __builtin_fmaf(x[i], x[i], lanes[lane]);
  for (int half = kSumLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <class T>
void combine_as(const T* f, const std::int32_t* position, const float* gate, std::int64_t top_k, std::int64_t width,
                float* x) {
  for (std::int64_t i = 0; i < width; i += kLanes) {
    const std::int64_t count = width - i;
    Vec sum{};
    for (std::int64_t j = 0; j < top_k; ++j) sum += gate[j] * load_some(f + position[j] * width + i, count);
    store_some(x + i, load_some(x + i, count) + sum, count);
  }
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, std::int64_t width, float* y) {
  const float mean = sum_of_squares(x, width) / static_cast<float>(width);
  const float scale = 1.0f / __builtin_sqrtf(mean + eps);
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

void rope(float* row, const float* angle, std::int64_t heads, std::int64_t head_dim, std::int64_t half) {
  for (std::int64_t head = 0; head < heads; ++head) {
    float* low = row + head * head_dim;
    float* high = low + half;
    for (std::int64_t i = 0; i < half; i += kLanes) {
      const std::int64_t count = half - i;
      const Vec cosine = load_some(angle + i, count);
      const Vec sine = load_some(angle + half + i, count);
      const Vec a = load_some(low + i, count);
      const Vec b = load_some(high + i, count);
      store_some(low + i, a * cosine - b * sine, count);
      store_some(high + i, b * cosine + a * sine, count);
    }
  }
}

void sigmoid(const float* x, std::int64_t count, float* s) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    store_some(s + i, sigmoid_of(load_some(x + i, count - i)), count - i);
  }
}

void combine(const void* f, bool is_bf16, const std::int32_t* position, const float* gate, std::int64_t top_k,
             std::int64_t width, float* x) {
  if (is_bf16) {
    combine_as(static_cast<const bf16*>(f), position, gate, top_k, width, x);
  } else {
    combine_as(static_cast<const float*>(f), position, gate, top_k, width, x);
  }
}

}  // namespace reap::REAP_ISA
