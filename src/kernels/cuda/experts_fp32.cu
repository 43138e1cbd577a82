#include <cuda_bf16.h>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/expert_kernels.cuh"

// Grouped products of fp32 activations by fp32 multiply-adds: the arithmetic of the reference. A block of 256 threads
// makes 64 slots by 64 rows of weights, a thread 4 by 4 of them. Every output is one chain of multiply-adds in
// ascending order of depth.

namespace reap::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;   // slots, and rows of weights
constexpr int kDepth = 16;  // of a step
constexpr int kEach = 4;    // slots and rows of a thread
constexpr int kAcross = kTile / kEach;

/// A row of a tile in shared memory, one longer than it need be: 16 rows read at one depth are in different banks.
using Panel = float[kTile][kDepth + 1];

struct ThreadPlace {
  __device__ ThreadPlace()
      : slot{static_cast<int>(threadIdx.x) / kAcross * kEach}, across{static_cast<int>(threadIdx.x) % kAcross} {}
  int slot;    // first of kEach
  int across;  // rows of weights across + 16 j
};

template <class T>
__device__ float weight_at(const ExpertProduct& product, int expert, int matrix, int column, int k) {
  const auto* const weight = static_cast<const T*>(product.weight[matrix][expert]);
  const T stored = weight[static_cast<std::int64_t>(column) * product.depth + k];
  if constexpr (sizeof(T) == 1) {
    const std::int64_t block = column / static_cast<int>(kScaleBlock);
    return f8_to_float(stored) *
           product.scale[matrix][expert][block * product.scale_cols + k / static_cast<int>(kScaleBlock)];
  } else {
    return as_float(stored);
  }
}

template <class T, int Matrices>
__device__ void load_panels(const ExpertProduct& product, const ExpertTile& tile, int first, Panel& input,
                            Panel& weights) {
  const int k = static_cast<int>(threadIdx.x) % kDepth;
  const bool exists = first + k < product.depth;
  for (int row = static_cast<int>(threadIdx.x) / kDepth; row < kTile; row += kThreads / kDepth) {
    const WeightRow from = weight_row(Matrices, row);
    const int column = tile.column * (kTile / Matrices) + from.column;
    weights[row][k] =
        exists && column < product.columns ? weight_at<T>(product, tile.expert, from.matrix, column, first + k) : 0.0f;
    const std::int64_t slot = tile.slot + row;
    input[row][k] = 0;
    if (!exists || row >= tile.slots) continue;
    const std::int64_t input_row = product.row == nullptr ? slot : product.row[slot];
    input[row][k] = static_cast<const float*>(product.input)[input_row * product.input_stride + first + k];
  }
}

template <class T, int Matrices>
__device__ void multiply_tile(const ExpertProduct& product, const ExpertTile& tile, const ThreadPlace& place,
                              float (&sums)[kEach][kEach]) {
  __shared__ Panel input, weights;
  for (int first = 0; first < product.depth; first += kDepth) {
    __syncthreads();
    load_panels<T, Matrices>(product, tile, first, input, weights);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          sums[i][j] = fmaf(input[place.slot + i][k], weights[place.across + j * kAcross][k], sums[i][j]);
        }
      }
    }
  }
}

template <class T>
__global__ __launch_bounds__(kThreads) void gate_and_up(const __grid_constant__ ExpertProduct product, float* act,
                                                        std::int64_t stride) {
  const ExpertTile tile = expert_tile(product.tiles, kTile, product.column_tiles, blockIdx.x);
  const ThreadPlace place;
  float sums[kEach][kEach] = {};
  multiply_tile<T, 2>(product, tile, place, sums);
  // weight_row(2, across + 16 j): even j are of W1, the odd one after it the same column of W3.
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (place.slot + i >= tile.slots) continue;
#pragma unroll
    for (int j = 0; j < kEach; j += 2) {
      const int column = tile.column * (kTile / 2) + weight_row(2, place.across + j * kAcross).column;
      if (column >= product.columns) continue;
      act[(tile.slot + place.slot + i) * stride + column] = silu_mul(sums[i][j], sums[i][j + 1]);
    }
  }
}

template <class T>
__global__ __launch_bounds__(kThreads) void down(const __grid_constant__ ExpertProduct product, float* f,
                                                 PartialNorms norms) {
  const ExpertTile tile = expert_tile(product.tiles, kTile, product.column_tiles, blockIdx.x);
  const ThreadPlace place;
  float sums[kEach][kEach] = {};
  multiply_tile<T, 1>(product, tile, place, sums);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t slot = tile.slot + place.slot + i;
    const bool exists = place.slot + i < tile.slots;
    NormPart part;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int column = tile.column * kTile + place.across + j * kAcross;
      if (column >= product.columns) continue;
      part.add(sums[i][j]);
      if (exists) f[slot * product.columns + column] = sums[i][j];
    }
    part.add_lanes(kAcross);  // those that share the slot
    if (exists && place.across == 0) store_part(norms, tile.column, slot, part);
  }
}

void launch_gate_and_up(const Launch& launch, const ExpertProduct& product, DType weight, void* act,
                        std::int64_t stride) {
  const auto kernel = weight == DType::f32    ? gate_and_up<float>
                      : weight == DType::bf16 ? gate_and_up<__nv_bfloat16>
                                              : gate_and_up<std::uint8_t>;
  launch_product(launch, product, kernel, kThreads, 0, static_cast<float*>(act), stride);
}

void launch_down(const Launch& launch, const ExpertProduct& product, DType weight, void* f, const PartialNorms& norms) {
  const auto kernel = weight == DType::f32    ? down<float>
                      : weight == DType::bf16 ? down<__nv_bfloat16>
                                              : down<std::uint8_t>;
  launch_product(launch, product, kernel, kThreads, 0, static_cast<float*>(f), norms);
}

}  // namespace

constinit const ExpertKernelSet kExpertsFp32{kTile, kTile, launch_gate_and_up, launch_down};

}  // namespace reap::cuda
