#include <algorithm>
#include <limits>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr std::uint32_t kAllLanes = 0xffffffffU;
constexpr std::uint32_t kNanRank = 0xffffffffU;
constexpr std::int64_t kMaxWarps = 8;             // of a block; each takes one row
constexpr std::int64_t kSharedBytes = 48 * 1024;  // of any device's block
constexpr std::int64_t kMaxBlocks = 1 << 20;

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// A total order of (score, expert) as one integer, lower experts first among equals and NaN above all.
__device__ std::uint64_t ranking(float score, std::uint32_t expert) {
  const std::uint32_t bits = __float_as_uint(score + 0.0f);  // -0 becomes 0
  const std::uint32_t ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
  const std::uint32_t rank = isnan(score) ? kNanRank : ordered;
  return (std::uint64_t{rank} << 32) | (0xffffffffU - expert);
}

__device__ std::int32_t expert_of(std::uint64_t ranked) {
  return static_cast<std::int32_t>(0xffffffffU - static_cast<std::uint32_t>(ranked));
}

__device__ std::uint64_t warp_max(std::uint64_t value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const std::uint64_t other = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(value), distance);
    value = other > value ? other : value;
  }
  return value;
}

/// One warp per row. The best ranking below the one before is looked for top_k times: no two are equal, and lane j
/// keeps the j-th.
__global__ void select_rows(const float* logits, const float* bias, std::int64_t rows, int experts, int top_k,
                            std::int32_t* expert, float* gate_value) {
  extern __shared__ std::uint64_t rankings[];  // [warps, experts]
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  std::uint64_t* const mine = rankings + static_cast<std::int64_t>(warp) * experts;
  for (std::int64_t row = std::int64_t{blockIdx.x} * warps + warp; row < rows; row += std::int64_t{gridDim.x} * warps) {
    const float* const row_logits = logits + row * experts;
    // A lane reads only rankings that it wrote itself.
    for (int e = lane; e < experts; e += kWarp) {
      mine[e] = ranking(sigmoid(row_logits[e]) + bias[e], static_cast<std::uint32_t>(e));
    }
    std::uint64_t before = 0;
    std::uint64_t best = 0;
    std::int32_t chosen = 0;
    bool has_nan = false;
    for (int j = 0; j < top_k; ++j) {
      best = 0;
      for (int e = lane; e < experts; e += kWarp) {
        const std::uint64_t candidate = mine[e];
        const bool is_next = (j == 0 || candidate < before) && candidate > best;
        best = is_next ? candidate : best;
      }
      best = before = warp_max(best);
      if (j == 0) has_nan = best >> 32 == kNanRank;
      if (lane == j) chosen = expert_of(best);
    }
    // Ascending by id: a lane's place is the number of lower ids.
    int place = 0;
    for (int j = 0; j < top_k; ++j) place += __shfl_sync(kAllLanes, chosen, j) < chosen ? 1 : 0;
    std::int32_t ascending = 0;
    for (int j = 0; j < top_k; ++j) {
      const std::int32_t id = __shfl_sync(kAllLanes, chosen, j);
      const int at = __shfl_sync(kAllLanes, place, j);
      if (lane == at) ascending = id;
    }
    const float s = lane < top_k ? sigmoid(row_logits[ascending]) : 0.0f;
    float total = has_nan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    for (int j = 0; j < top_k; ++j) total += __shfl_sync(kAllLanes, s, j);
    if (lane < top_k) {
      expert[row * top_k + lane] = ascending;
      gate_value[row * top_k + lane] = s / total;
    }
  }
}

}  // namespace

void select_experts(const Launch& launch, const float* logits, const float* bias, std::int64_t rows,
                    std::int64_t experts, std::int64_t top_k, std::int32_t* expert, float* gate_value) {
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(std::uint64_t));
  REAP_CUDA_REQUIRE(top_k >= 1 && top_k <= experts && top_k <= kWarp && experts * kBytes <= kSharedBytes,
                    "top " + std::to_string(top_k) + " of " + std::to_string(experts) + " experts on a GPU");
  if (rows == 0) return;
  const std::int64_t warps = std::min(kMaxWarps, kSharedBytes / (experts * kBytes));
  const int blocks = static_cast<int>(std::min(ceil_div(rows, warps), kMaxBlocks));
  select_rows<<<blocks, static_cast<int>(warps) * kWarp, static_cast<std::size_t>(warps * experts * kBytes),
                launch.stream>>>(logits, bias, rows, static_cast<int>(experts), static_cast<int>(top_k), expert,
                                 gate_value);
  REAP_CUDA_LAUNCHED();
}

}  // namespace reap::cuda
