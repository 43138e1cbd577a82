#include <cmath>
#include <vector>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 20;
constexpr std::int64_t kMaxRotaryDim = 8192;  // 32 KB of angles in shared memory

/// The heads of one row, normed together and rotated one by one; `angle` holds half cosines, then half sines.
template <class Act>
__device__ void norm_rope_row(const float* x, const float* weight, std::int64_t heads, std::int64_t head_dim,
                              std::int64_t half, float eps, const float* angle, float* sums, Act* act) {
  const std::int64_t width = heads * head_dim;
  float square_sum = 0;
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) square_sum = fmaf(x[i], x[i], square_sum);
  const float mean = block_sum(square_sum, sums) / static_cast<float>(width);
  const float scale = 1.0f / sqrtf(mean + eps);
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) {
    const auto dim = static_cast<std::int64_t>(static_cast<std::uint32_t>(i) % static_cast<std::uint32_t>(head_dim));
    const float value = x[i] * scale * weight[i];
    if (dim >= 2 * half) {
      store(value, act + i);
    } else if (dim < half) {  // of a pair, whose other half no thread of its own takes
      const float other = x[i + half] * scale * weight[i + half];
      const float cosine = angle[dim], sine = angle[half + dim];
      store(value * cosine - other * sine, act + i);
      store(other * cosine + value * sine, act + i + half);
    }
  }
}

template <class Act>
__global__ void norm_rope_rows(const float* q, const float* k, const float* v, const float* q_weight,
                               const float* k_weight, const std::int32_t* position, const double* frequency,
                               std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, std::int64_t half,
                               float eps, std::int64_t rows, Act* q_act, Act* k_act, Act* v_act) {
  extern __shared__ float angle[];
  __shared__ float sums[kThreads / kWarp];
  const std::int64_t q_width = heads * head_dim, kv_width = kv_heads * head_dim;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    __syncthreads();  // the row before has used its angles
    // In fp64: in fp32 the angle of position 100,000 would be off by 4e-3 already.
    for (std::int64_t i = threadIdx.x; i < half; i += kThreads) {
      double sine = 0, cosine = 0;
      sincos(static_cast<double>(position[row]) * frequency[i], &sine, &cosine);
      angle[i] = static_cast<float>(cosine);
      angle[half + i] = static_cast<float>(sine);
    }
    // The sums wait for the whole block, and so for the angles.
    norm_rope_row(q + row * q_width, q_weight, heads, head_dim, half, eps, angle, sums, q_act + row * q_width);
    norm_rope_row(k + row * kv_width, k_weight, kv_heads, head_dim, half, eps, angle, sums, k_act + row * kv_width);
    for (std::int64_t i = threadIdx.x; i < kv_width; i += kThreads) {
      store(v[row * kv_width + i], v_act + row * kv_width + i);
    }
  }
}

template <class Act>
void run(const Launch& launch, const float* q, const float* k, const float* v, const float* q_weight,
         const float* k_weight, const std::int32_t* position, const double* frequency, const AttentionShape& shape,
         std::int64_t rows, void* q_act, void* k_act, void* v_act) {
  const int blocks = static_cast<int>(rows < kMaxBlocks ? rows : kMaxBlocks);
  const std::size_t shared = static_cast<std::size_t>(shape.rotary_dim) * sizeof(float);
  norm_rope_rows<<<blocks, kThreads, shared, launch.stream>>>(
      q, k, v, q_weight, k_weight, position, frequency, shape.heads, shape.kv_heads, shape.head_dim,
      shape.rotary_dim / 2, shape.norm_eps, rows, static_cast<Act*>(q_act), static_cast<Act*>(k_act),
      static_cast<Act*>(v_act));
  REAP_CUDA_LAUNCHED();
}

}  // namespace

void qk_norm_rope(const Launch& launch, const float* q, const float* k, const float* v, const float* q_weight,
                  const float* k_weight, const std::int32_t* position, const AttentionShape& shape, std::int64_t rows,
                  void* q_act, void* k_act, void* v_act) {
  if (rows == 0) return;
  REAP_CUDA_REQUIRE(
      shape.rotary_dim % 2 == 0 && shape.rotary_dim <= shape.head_dim && shape.rotary_dim <= kMaxRotaryDim,
      std::to_string(shape.rotary_dim) + " of " + std::to_string(shape.head_dim) + " dims cannot be rotated");
  std::vector<double> frequency(static_cast<std::size_t>(shape.rotary_dim / 2));
  for (std::size_t i = 0; i < frequency.size(); ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(shape.rotary_dim);
    frequency[i] = std::pow(shape.rope_theta, exponent);
  }
  auto* const on_device = launch.scratch->take<double>(shape.rotary_dim / 2);
  launch.staging->upload(launch.stream, on_device, frequency.data(), frequency.size() * sizeof(double));
  if (launch.compute == Compute::bf16) {
    run<__nv_bfloat16>(launch, q, k, v, q_weight, k_weight, position, on_device, shape, rows, q_act, k_act, v_act);
  } else {
    run<float>(launch, q, k, v, q_weight, k_weight, position, on_device, shape, rows, q_act, k_act, v_act);
  }
}

}  // namespace reap::cuda
