#include "kernels/cuda/check.hpp"
#include "kernels/cuda/expert_kernels.cuh"
#include "kernels/cuda/expert_panels.cuh"

// Grouped products on the tensor cores by mma.sync. A block of 8 warps makes 128 slots by 128 rows of weights, a warp
// 64 by 32 of them. Every output is one chain of additions in ascending order of depth: its bits depend on nothing
// else.

namespace reap::cuda {
namespace {

constexpr int kStages = 3;
constexpr int kTileRows = 128;   // of weights
constexpr int kWarpsAcross = 4;  // along the rows of weights
constexpr int kWarpSlots = 64;
constexpr int kWarpRows = kTileRows / kWarpsAcross;
constexpr int kSlotTiles = kWarpSlots / 16;
constexpr int kRowTiles = kWarpRows / 8;

using Input = InputPanels<kStages>;
template <int Matrices>
using Bf16Weights = Bf16Panels<Matrices, kTileRows, kStages>;
template <int Matrices>
using F8Weights = F8Panels<Matrices, kTileRows, kStages - 1>;
constexpr int kSharedBytes = Input::kBytes + Bf16Weights<1>::kBytes;
static_assert(F8Weights<1>::kBytes <= Bf16Weights<1>::kBytes);

using Sums = float[kSlotTiles][kRowTiles][4];

/// Where a thread's warp works in the tile.
struct WarpPlace {
  __device__ WarpPlace()
      : lane{static_cast<int>(threadIdx.x) % 32},
        across{static_cast<int>(threadIdx.x) / 32 % kWarpsAcross},
        slot{static_cast<int>(threadIdx.x) / 32 / kWarpsAcross * kWarpSlots} {}
  int lane;
  int across;
  int slot;
};

__device__ void multiply_panels(std::uint32_t input, std::uint32_t weights, const WarpPlace& place, Sums& sums) {
  const RowChunk from_a = a_source(place.lane);
  const RowChunk from_b = b_source(place.lane);
#pragma unroll
  for (int chunk = 0; chunk < kPanelChunks; chunk += 2) {
    std::uint32_t a[kSlotTiles][4], b[kRowTiles / 2][4];
#pragma unroll
    for (int i = 0; i < kSlotTiles; ++i) {
      load_matrices(a[i], input + swizzled<kPanelChunks>(place.slot + i * 16 + from_a.row, chunk + from_a.chunk));
    }
#pragma unroll
    for (int j = 0; j < kRowTiles / 2; ++j) {
      load_matrices(
          b[j], weights + swizzled<kPanelChunks>(place.across * kWarpRows + j * 16 + from_b.row, chunk + from_b.chunk));
    }
#pragma unroll
    for (int i = 0; i < kSlotTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kRowTiles; ++j) {
        multiply_add(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
}

/// In step k, panels k are multiplied while panels k + 1 and k + 2 are on their way.
template <class Weights>
__device__ void multiply_tile(const ExpertProduct& product, const ExpertTile& tile, std::uint32_t shared,
                              const WarpPlace& place, Sums& sums) {
  const Input input(product, tile, shared);
  const Weights weights(product, tile, shared + Input::kBytes);
  const int steps = panel_steps(product.depth);
  for (int step = 0; step < 2; ++step) {
    input.load(step);
    weights.load(step);
    commit_copies();
  }
  weights.begin();
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<1>();
    __syncthreads();  // panels of this step are whole, and nobody reads those of the step before any more
    weights.advance(step);
    input.load(step + 2);
    commit_copies();
    multiply_panels(input.panel(step), weights.panel(step), place, sums);
  }
}

template <class Weights>
__global__ __launch_bounds__(kPanelThreads, 2) void gate_and_up(const __grid_constant__ ExpertProduct product,
                                                                __nv_bfloat16* act, std::int64_t stride) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const ExpertTile tile = expert_tile(product.tiles, kPanelSlots, product.column_tiles, blockIdx.x);
  const WarpPlace place;
  Sums sums = {};
  multiply_tile<Weights>(product, tile, shared_address(shared), place, sums);
  // A warp's row tiles 0 and 1 are of W1, 2 and 3 the same columns of W3 (weight_row()).
  const int first_column = tile.column * (kTileRows / 2) + place.across * (kWarpRows / 2);
#pragma unroll
  for (int i = 0; i < kSlotTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int local = place.slot + i * 16 + accumulator_row(place.lane, half * 2);
      if (local >= tile.slots) continue;
      __nv_bfloat16* const to = act + (tile.slot + local) * stride;
#pragma unroll
      for (int j = 0; j < kRowTiles / 2; ++j) {
        const int column = first_column + j * 8 + accumulator_col(place.lane, 0);
        const float(&gate)[4] = sums[i][j];
        const float(&up)[4] = sums[i][j + kRowTiles / 2];
        store_bf16(to + column, silu_mul(gate[half * 2], up[half * 2]), silu_mul(gate[half * 2 + 1], up[half * 2 + 1]),
                   true, product.columns - column);
      }
    }
  }
}

/// Adds the parts of a slot that the warps across the tile hold, in their order, and stores what they make.
__device__ void store_norms(const PartialNorms& norms, const ExpertTile& tile, const NormPart* parts) {
  const int local = static_cast<int>(threadIdx.x);
  if (local >= tile.slots) return;  // there are more threads than slots in a tile
  NormPart part = parts[local * kWarpsAcross];
  for (int warp = 1; warp < kWarpsAcross; ++warp) part.add(parts[local * kWarpsAcross + warp]);
  store_part(norms, tile.column, tile.slot + local, part);
}

template <class Weights>
__global__ __launch_bounds__(kPanelThreads, 2) void down(const __grid_constant__ ExpertProduct product,
                                                         __nv_bfloat16* f, PartialNorms norms) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const ExpertTile tile = expert_tile(product.tiles, kPanelSlots, product.column_tiles, blockIdx.x);
  const WarpPlace place;
  Sums sums = {};
  multiply_tile<Weights>(product, tile, shared_address(shared), place, sums);
  wait_for_copies<0>();
  __syncthreads();  // the panels' memory is free
  auto* const parts = reinterpret_cast<NormPart*>(shared);
  const bool paired = product.columns % 2 == 0;
  const int first_column = tile.column * kTileRows + place.across * kWarpRows;
#pragma unroll
  for (int i = 0; i < kSlotTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int local = place.slot + i * 16 + accumulator_row(place.lane, half * 2);
      __nv_bfloat16* const to = f + (tile.slot + local) * product.columns;
      NormPart part;
#pragma unroll
      for (int j = 0; j < kRowTiles; ++j) {
        const int column = first_column + j * 8 + accumulator_col(place.lane, 0);
        const float first = sums[i][j][half * 2], second = sums[i][j][half * 2 + 1];
        if (column < product.columns) part.add(first);
        if (column + 1 < product.columns) part.add(second);
        if (local < tile.slots) store_bf16(to + column, first, second, paired, product.columns - column);
      }
      part.add_lanes(4);  // those that share the slot
      if (place.lane % 4 == 0) parts[local * kWarpsAcross + place.across] = part;
    }
  }
  __syncthreads();
  store_norms(norms, tile, parts);
}

void launch_gate_and_up(const Launch& launch, const ExpertProduct& product, DType weight, void* act,
                        std::int64_t stride) {
  const auto kernel = weight == DType::bf16 ? gate_and_up<Bf16Weights<2>> : gate_and_up<F8Weights<2>>;
  launch_product(launch, product, kernel, kPanelThreads, kSharedBytes, static_cast<__nv_bfloat16*>(act), stride);
}

void launch_down(const Launch& launch, const ExpertProduct& product, DType weight, void* f, const PartialNorms& norms) {
  const auto kernel = weight == DType::bf16 ? down<Bf16Weights<1>> : down<F8Weights<1>>;
  launch_product(launch, product, kernel, kPanelThreads, kSharedBytes, static_cast<__nv_bfloat16*>(f), norms);
}

}  // namespace

constinit const ExpertKernelSet kExpertsPortable{kPanelSlots, kTileRows, launch_gate_and_up, launch_down};

}  // namespace reap::cuda
