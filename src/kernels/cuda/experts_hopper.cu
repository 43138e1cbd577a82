#include "kernels/cuda/expert_kernels.cuh"
#include "kernels/cuda/expert_panels.cuh"
#include "kernels/cuda/wgmma.cuh"

// Grouped products by wgmma, for compute capability 9.0 alone. A block of two warpgroups makes 128 slots by 256 rows of
// weights, a warpgroup 64 of the slots. While the tensor cores work on one step of depth, the same threads bring and
// expand the next. Every output is one chain of additions in ascending order of depth: its bits depend on nothing else.

namespace reap::cuda {
namespace {

constexpr int kStages = 4;
constexpr int kTileRows = 256;  // of weights
constexpr int kRowTiles = kTileRows / 8;
constexpr int kGroupSlots = 64;  // of a warpgroup
constexpr int kGroupThreads = 128;
constexpr int kStepDepth = 16;  // of one wgmma

using Input = InputPanels<kStages>;
template <int Matrices>
using Bf16Weights = Bf16Panels<Matrices, kTileRows, kStages>;
template <int Matrices>
using F8Weights = F8Panels<Matrices, kTileRows, kStages - 1>;
constexpr int kSharedBytes = Input::kBytes + Bf16Weights<1>::kBytes;
static_assert(F8Weights<1>::kBytes <= Bf16Weights<1>::kBytes);

using Sums = float[kRowTiles][4];

/// Queues the products of one step.
__device__ void multiply_panels(std::uint32_t input, std::uint32_t weights, Sums& sums) {
  hold(sums);
  warpgroup_arrive();
#pragma unroll
  for (int k = 0; k < kPanelDepth; k += kStepDepth) {
    warpgroup_multiply_add(sums, matrix_descriptor(input + k * 2), matrix_descriptor(weights + k * 2));
  }
  warpgroup_commit();
}

/// In step k the products of step k are queued while those of k - 1 may still run, panels k + 1 are on their way, and
/// panels k + 2 take the place of k - 2. Expanded weights k + 1 take the place of k - 2 in a ring that is one shorter.
template <class Weights>
__device__ void multiply_tile(const ExpertProduct& product, const ExpertTile& tile, std::uint32_t shared, Sums& sums) {
  const Input input(product, tile, shared);
  const Weights weights(product, tile, shared + Input::kBytes);
  const int steps = panel_steps(product.depth);
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  for (int step = 0; step < 2; ++step) {
    input.load(step);
    weights.load(step);
    commit_copies();
  }
  weights.begin();
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<1>();
    publish_to_matrix_units();
    __syncthreads();  // panels of this step are whole, and both warpgroups are done with those two steps back
    multiply_panels(input.panel(step) + group * panel_bytes(kGroupSlots), weights.panel(step), sums);
    weights.advance(step);
    input.load(step + 2);
    commit_copies();
    warpgroup_wait<1>();
    hold(sums);
  }
  warpgroup_wait<0>();
  hold(sums);
}

/// First slot of the thread's warp in its tile.
__device__ int warp_slot() { return static_cast<int>(threadIdx.x) / 32 * 16; }

template <class Weights>
__global__ __launch_bounds__(kPanelThreads, 1) void gate_and_up(const __grid_constant__ ExpertProduct product,
                                                                __nv_bfloat16* act, std::int64_t stride) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const ExpertTile tile = expert_tile(product.tiles, kPanelSlots, product.column_tiles, blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Sums sums = {};
  multiply_tile<Weights>(product, tile, shared_address(shared), sums);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int local = warp_slot() + accumulator_row(lane, half * 2);
    if (local >= tile.slots) continue;
    __nv_bfloat16* const to = act + (tile.slot + local) * stride;
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
      if (j % 4 >= 2) continue;  // of four row tiles, two are of W1 and two the same columns of W3 (weight_row())
      const int column = tile.column * (kTileRows / 2) + j / 4 * 16 + j % 4 * 8 + accumulator_col(lane, 0);
      const float(&gate)[4] = sums[j];
      const float(&up)[4] = sums[j + 2];
      store_bf16(to + column, silu_mul(gate[half * 2], up[half * 2]), silu_mul(gate[half * 2 + 1], up[half * 2 + 1]),
                 true, product.columns - column);
    }
  }
}

template <class Weights>
__global__ __launch_bounds__(kPanelThreads, 1) void down(const __grid_constant__ ExpertProduct product,
                                                         __nv_bfloat16* f, PartialNorms norms) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const ExpertTile tile = expert_tile(product.tiles, kPanelSlots, product.column_tiles, blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Sums sums = {};
  multiply_tile<Weights>(product, tile, shared_address(shared), sums);
  const bool paired = product.columns % 2 == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int local = warp_slot() + accumulator_row(lane, half * 2);
    const bool exists = local < tile.slots;
    __nv_bfloat16* const to = f + (tile.slot + local) * product.columns;
    NormPart part;
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
      const int column = tile.column * kTileRows + j * 8 + accumulator_col(lane, 0);
      const float first = sums[j][half * 2], second = sums[j][half * 2 + 1];
      if (column < product.columns) part.add(first);
      if (column + 1 < product.columns) part.add(second);
      if (exists) store_bf16(to + column, first, second, paired, product.columns - column);
    }
    part.add_lanes(4);  // those that share the slot
    if (exists && lane % 4 == 0) store_part(norms, tile.column, tile.slot + local, part);
  }
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

constinit const ExpertKernelSet kExpertsHopper{kPanelSlots, kTileRows, launch_gate_and_up, launch_down};

}  // namespace reap::cuda
