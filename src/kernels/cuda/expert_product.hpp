#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.hpp"
#include "kernels/cuda/expert_tiles.hpp"
#include "kernels/cuda/launch.hpp"

namespace reap::cuda {

/// Which kernels multiply bf16 activations. All give the same function; the last bits may differ between them.
enum class ExpertKernels : std::uint8_t {
  automatic,  // by device and shape
  portable,   // mma.sync: compute capability 8.0 and later
  hopper,     // wgmma: compute capability 9.0 alone
};

/// As the operation of ops.hpp, with kernels of one's choice.
void experts(const Launch& launch, const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
             std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs, const SquareSums& inner,
             ExpertKernels kernels);

/// out[slot, :] = input[row[slot], :] W^T for the slots of up to kMostExperts experts, or of two matrices at once.
struct ExpertProduct {
  ExpertTiles tiles;
  const void* weight[2][kMostExperts];  // [columns, depth] each; the second matrix only where two are multiplied
  const float* scale[2][kMostExperts];  // of f8_e4m3
  const void* input;                    // [.., input_stride]
  const std::int32_t* row;              // of each slot, or null: its own
  std::int64_t input_stride;
  std::int32_t depth;
  std::int32_t columns;
  std::int32_t column_tiles;
  std::int32_t scale_cols;
  bool input_aligned;   // every row of the input begins at a multiple of 16 bytes
  bool weight_aligned;  // and of the weights
};
static_assert(sizeof(ExpertProduct) < 32'000, "kernel parameters end at 32,764 bytes");

/// What the second product leaves for the norms: of each tile of columns, for every slot.
struct PartialNorms {
  double* square_sum;      // [column tiles, slots]
  std::uint32_t* highest;  // [column tiles, slots] bits of the largest magnitude: they order like it, NaN on top
  std::int64_t slots;
};

/// The kernels of one kind. Tiles of slots and of columns differ from kind to kind.
struct ExpertKernelSet {
  int tile_slots;
  int tile_rows;  // of weights: as many columns of one matrix, or half as many of each of two
  /// act = silu(W1 x) * (W3 x), stored at `stride`.
  void (*gate_and_up)(const Launch&, const ExpertProduct&, DType weight, void* act, std::int64_t stride);
  /// f = W2 act, and what its norms are made from.
  void (*down)(const Launch&, const ExpertProduct&, DType weight, void* f, const PartialNorms& norms);
};

extern const ExpertKernelSet kExpertsFp32;
extern const ExpertKernelSet kExpertsPortable;
extern const ExpertKernelSet kExpertsHopper;

}  // namespace reap::cuda
