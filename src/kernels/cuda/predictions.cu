#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 1024;  // of a block, which takes a row: few rows come at a time, and long ones
constexpr int kWarps = kThreads / kWarp;
constexpr std::int64_t kMaxBlocks = 1 << 20;

int grid_for(std::int64_t rows) { return static_cast<int>(std::min(rows, kMaxBlocks)); }

/// A logit and its place; the larger logit wins, the lower place among equals. NaN never does.
struct Top {
  float logit;
  std::int32_t place;

  __device__ void meet(float other, std::int32_t at) {
    const bool wins = other > logit || (other == logit && at < place);
    logit = wins ? other : logit;
    place = wins ? at : place;
  }
};

/// The winner of a block, in every thread. `shared` holds one per warp.
__device__ Top block_top(Top top, Top* shared) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float logit = __shfl_xor_sync(0xffffffffU, top.logit, distance);
    const std::int32_t place = __shfl_xor_sync(0xffffffffU, top.place, distance);
    top.meet(logit, place);
  }
  __syncthreads();  // an earlier winner has been read
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = top;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) top.meet(shared[warp].logit, shared[warp].place);
  return top;
}

__global__ void __launch_bounds__(kThreads)
    predict_rows(const float* logits, const std::int32_t* target, std::int64_t rows, std::int64_t vocab,
                 Prediction* prediction) {
  __shared__ Top tops[kWarps];
  __shared__ double sums[kWarps];
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* const x = logits + row * vocab;
    Top top{-std::numeric_limits<float>::infinity(), std::numeric_limits<std::int32_t>::max()};
#pragma unroll 8
    for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) top.meet(x[i], static_cast<std::int32_t>(i));
    top = block_top(top, tops);
    double part = 0;
    float finite = 0;  // stays zero
#pragma unroll 8
    for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) {
      const float value = x[i];
      finite = fmaf(value, 0.0f, finite);
      part += static_cast<double>(expf(value - top.logit));
    }
    const double sum = block_sum(part + static_cast<double>(finite), sums);
    if (threadIdx.x != 0) continue;
    const std::int32_t id = target[row];
    double nll = id >= 0 ? static_cast<double>(top.logit) - static_cast<double>(x[id]) + log(sum) : 0;
    if (!isfinite(sum)) nll = std::numeric_limits<double>::quiet_NaN();
    const bool has_top = top.place < vocab;  // else there was nothing but NaN
    prediction[row] = {sum, nll, top.logit, has_top ? top.place : 0};
  }
}

__global__ void __launch_bounds__(kThreads)
    diverge_rows(const float* p_logits, const Prediction* p, const float* q_logits, const Prediction* q,
                 std::int64_t rows, std::int64_t vocab, Divergence* divergence) {
  __shared__ double sums[kWarps];
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* const p_row = p_logits + row * vocab;
    const float* const q_row = q_logits + row * vocab;
    const double p_sum = p[row].sum;
    const double scale = p_sum / q[row].sum;
    const float p_max = p[row].max;
    const float q_max = q[row].max;
    const double shift = static_cast<double>(p_max) - static_cast<double>(q_max) + (log(p_sum) - log(q[row].sum));
    double distance = 0;
    double common = 0;
#pragma unroll 8
    for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) {
      const float p_value = p_row[i];
      const float q_value = q_row[i];
      const auto a = static_cast<double>(expf(p_value - p_max));
      const double b = static_cast<double>(expf(q_value - q_max)) * scale;
      distance += a * (static_cast<double>(p_value) - static_cast<double>(q_value) - shift);
      common += a < b ? a : b;
    }
    const double kl = block_sum(distance, sums) / p_sum;
    const double overlap = block_sum(common, sums) / p_sum;
    if (threadIdx.x == 0) divergence[row] = {kl < 0 ? 0 : kl, overlap};
  }
}

}  // namespace

// Reads the row twice, the second time from L2 where the device has room for the rows at hand: bound by HBM.
void predict(const Launch& launch, const float* logits, const std::int32_t* target, std::int64_t rows,
             std::int64_t vocab, Prediction* prediction) {
  REAP_CUDA_REQUIRE(vocab >= 1 && vocab < std::numeric_limits<std::int32_t>::max(),
                    "rows of " + std::to_string(vocab) + " logits");
  if (rows == 0) return;
  predict_rows<<<grid_for(rows), kThreads, 0, launch.stream>>>(logits, target, rows, vocab, prediction);
  REAP_CUDA_LAUNCHED();
}

// Reads rows * vocab * 8 bytes once: bound by HBM.
void diverge(const Launch& launch, const float* p_logits, const Prediction* p, const float* q_logits,
             const Prediction* q, std::int64_t rows, std::int64_t vocab, Divergence* divergence) {
  if (rows == 0) return;
  diverge_rows<<<grid_for(rows), kThreads, 0, launch.stream>>>(p_logits, p, q_logits, q, rows, vocab, divergence);
  REAP_CUDA_LAUNCHED();
}

}  // namespace reap::cuda
