#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/expert_product.hpp"

namespace reap::cuda {

/// silu(gate) * up in fp32.
__device__ inline float silu_mul(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

/// What some columns of one slot add to its norms. The order in which parts are added is the callers': it is fixed.
struct NormPart {
  double square_sum = 0;
  std::uint32_t highest = 0;

  __device__ void add(float value) {
    square_sum += static_cast<double>(value) * static_cast<double>(value);
    highest = max(highest, __float_as_uint(value) & 0x7fffffffU);
  }
  __device__ void add(const NormPart& other) {
    square_sum += other.square_sum;
    highest = max(highest, other.highest);
  }
  /// Adds the parts of `lanes` neighbouring lanes, a power of two; all of them get the sum.
  __device__ void add_lanes(int lanes) {
    for (int distance = 1; distance < lanes; distance *= 2) {
      add(NormPart{__shfl_xor_sync(0xffffffffU, square_sum, distance),
                   __shfl_xor_sync(0xffffffffU, highest, distance)});
    }
  }
};

__device__ inline void store_part(const PartialNorms& norms, int column_tile, std::int64_t slot, const NormPart& part) {
  norms.square_sum[column_tile * norms.slots + slot] = part.square_sum;
  norms.highest[column_tile * norms.slots + slot] = part.highest;
}

/// One block per tile. A kernel may want more dynamic shared memory than a launch has without asking.
template <class... Arguments>
void launch_product(const Launch& launch, const ExpertProduct& product, void (*kernel)(ExpertProduct, Arguments...),
                    int threads, int shared_bytes, Arguments... arguments) {
  const std::int64_t blocks =
      static_cast<std::int64_t>(product.tiles.first_tile[product.tiles.experts]) * product.column_tiles;
  REAP_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), static_cast<std::size_t>(shared_bytes),
           launch.stream>>>(product, arguments...);
  REAP_CUDA_LAUNCHED();
}

}  // namespace reap::cuda
