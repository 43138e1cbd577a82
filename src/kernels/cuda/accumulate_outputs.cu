#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fixed_digits.hpp"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr std::int64_t kMaxBlocks = 1 << 20;
constexpr int kSide = 4;  // rows of a tile of dot products

// What atomicAdd takes. Negative numbers add to it as they should: both wrap alike.
using Sum = unsigned long long;
static_assert(sizeof(Sum) == sizeof(std::int64_t));

/// Where the outputs of a token's slots are.
template <class Act>
struct Outputs {
  const Act* f;
  const std::int32_t* position;  // of the token's slots
  std::int64_t top_k, hidden;
  /// The row of a slot; of the last one for those behind it, whose sums nobody reads.
  __device__ const Act* row(std::int64_t slot) const {
    return f + static_cast<std::int64_t>(position[slot < top_k ? slot : top_k - 1]) * hidden;
  }
};

/// Dot products of the outputs of slots from first_i on with those from first_j on, in every lane. Each lane adds its
/// share of `hidden` in ascending order, then comes a tree over the warp.
template <class Act>
__device__ void dot_tile(const Outputs<Act>& in, std::int64_t first_i, std::int64_t first_j, int lane,
                         double (&sum)[kSide][kSide]) {
  const Act* a[kSide];
  const Act* b[kSide];
#pragma unroll
  for (int k = 0; k < kSide; ++k) {
    a[k] = in.row(first_i + k);
    b[k] = in.row(first_j + k);
  }
  for (std::int64_t at = lane; at < in.hidden; at += kWarp) {
    double right[kSide];
#pragma unroll
    for (int j = 0; j < kSide; ++j) right[j] = static_cast<double>(as_float(b[j][at]));
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      const auto left = static_cast<double>(as_float(a[i][at]));
#pragma unroll
      for (int j = 0; j < kSide; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) sum[i][j] = warp_sum(sum[i][j]);
  }
}

/// Adds a value of either sign. @return false when it is not finite or out of range
__device__ bool add_signed(double value, Sum* sums) {
  std::uint64_t digits[kDigits];
  if (!to_digits(fabs(value), kPairFractionBits, digits)) return false;
#pragma unroll
  for (int i = 0; i < kDigits; ++i) {
    if (digits[i] != 0) atomicAdd(sums + i, value < 0 ? Sum{0} - digits[i] : Sum{digits[i]});
  }
  return true;
}

/// A warp per token, a tile of its pairs at a time; each lane adds one pair of the tile.
template <class Act>
__global__ void add_pairs(const std::int32_t* expert, const float* gate_value, const Act* f,
                          const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                          std::int64_t experts, Sum* sums, long long* bad_slot) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t step = std::int64_t{gridDim.x} * kWarps;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; row < rows; row += step) {
    const std::int64_t slot = row * top_k;
    const Outputs<Act> in{f, position + slot, top_k, hidden};
    for (std::int64_t first_i = 0; first_i < top_k; first_i += kSide) {
      for (std::int64_t first_j = first_i; first_j < top_k; first_j += kSide) {
        double tile[kSide][kSide] = {};
        dot_tile(in, first_i, first_j, lane, tile);
        double dot = 0;
#pragma unroll
        for (int pair = 0; pair < kSide * kSide; ++pair) dot = lane == pair ? tile[pair / kSide][pair % kSide] : dot;
        const std::int64_t i = first_i + lane / kSide;
        const std::int64_t j = first_j + lane % kSide;
        if (lane >= kSide * kSide || j >= top_k || i > j) continue;
        const double gates = static_cast<double>(gate_value[slot + i]) * static_cast<double>(gate_value[slot + j]);
        Sum* const to = sums + pair_index(expert[slot + i], expert[slot + j], experts) * kDigits;
        // When it is not slot j that is bad but i, the pair (i, i) says so.
        if (!add_signed(gates * dot, to)) atomicMin(bad_slot, static_cast<long long>(slot + j));
      }
    }
  }
}

/// The elements of a slot by the threads of a block.
template <class Act>
__global__ void add_outputs(const std::int32_t* expert, const Act* f, const std::int32_t* position, std::int64_t slots,
                            std::int64_t hidden, Sum* sums) {
  constexpr double kUnits = static_cast<double>(std::int64_t{1} << kOutputFractionBits);
  constexpr double kLimit = 0x1p62;  // one beyond adds what does not matter
  for (std::int64_t slot = blockIdx.x; slot < slots; slot += gridDim.x) {
    const Act* const from = f + static_cast<std::int64_t>(position[slot]) * hidden;
    Sum* const to = sums + expert[slot] * hidden;
    for (std::int64_t i = threadIdx.x; i < hidden; i += kThreads) {
      const double scaled = static_cast<double>(as_float(from[i])) * kUnits;
      if (fabs(scaled) < kLimit) atomicAdd(to + i, static_cast<Sum>(__double2ll_rn(scaled)));
    }
  }
}

int grid_for(std::int64_t blocks) { return static_cast<int>(std::min(blocks, kMaxBlocks)); }

template <class Act>
void run_pairs(const Launch& launch, const std::int32_t* expert, const float* gate_value, const void* f,
               const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
               std::int64_t experts, std::int64_t* sums, std::int64_t* bad_slot) {
  static_assert(sizeof(long long) == sizeof(std::int64_t));
  add_pairs<<<grid_for(ceil_div(rows, kWarps)), kThreads, 0, launch.stream>>>(
      expert, gate_value, static_cast<const Act*>(f), position, rows, top_k, hidden, experts,
      reinterpret_cast<Sum*>(sums), reinterpret_cast<long long*>(bad_slot));
  REAP_CUDA_LAUNCHED();
}

template <class Act>
void run_outputs(const Launch& launch, const std::int32_t* expert, const void* f, const std::int32_t* position,
                 std::int64_t slots, std::int64_t hidden, std::int64_t* sums) {
  add_outputs<<<grid_for(slots), kThreads, 0, launch.stream>>>(expert, static_cast<const Act*>(f), position, slots,
                                                               hidden, reinterpret_cast<Sum*>(sums));
  REAP_CUDA_LAUNCHED();
}

}  // namespace

void accumulate_pairs(const Launch& launch, const std::int32_t* expert, const float* gate_value, const void* f,
                      const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                      std::int64_t experts, std::int64_t* sums, std::int64_t* bad_slot) {
  if (rows == 0) return;
  const auto run = launch.compute == Compute::bf16 ? run_pairs<__nv_bfloat16> : run_pairs<float>;
  run(launch, expert, gate_value, f, position, rows, top_k, hidden, experts, sums, bad_slot);
}

void accumulate_outputs(const Launch& launch, const std::int32_t* expert, const void* f, const std::int32_t* position,
                        std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t* sums) {
  if (rows == 0) return;
  const auto run = launch.compute == Compute::bf16 ? run_outputs<__nv_bfloat16> : run_outputs<float>;
  run(launch, expert, f, position, rows * top_k, hidden, sums);
}

}  // namespace reap::cuda
