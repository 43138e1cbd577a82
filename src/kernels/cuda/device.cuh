#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

// What kernels share: element types, and sums whose order is fixed.
namespace reap::cuda {

constexpr int kWarp = 32;

__device__ inline float as_float(float value) { return value; }
__device__ inline float as_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float as_float(__half value) { return __half2float(value); }

/// A code of f8_e4m3; every one is a half.
__device__ inline float f8_to_float(std::uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

__device__ inline void store(float value, float* to) { *to = value; }
__device__ inline void store(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

/// The sum over a warp, in every lane: a tree of fixed shape.
template <class T>
__device__ T warp_sum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffU, value, distance);
  return value;
}

/// The sum over a block of whole warps, in every thread, its shape fixed by blockDim.x. `shared` holds one T per warp;
/// every thread of the block has to come here.
template <class T>
__device__ T block_sum(T value, T* shared) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_sum(value);
  __syncthreads();  // an earlier sum has been read
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = shared[0];
  for (int warp = 1; warp < warps; ++warp) sum += shared[warp];
  return sum;
}

}  // namespace reap::cuda
