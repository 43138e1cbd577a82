#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/mma.cuh"

namespace reap::cuda {

/// Two e4m3 codes, exactly, as fp32: fp16 holds every value of e4m3.
__device__ inline float2 f8_values(std::uint32_t codes) {
  return __half22float2(
      __half2(__nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes & 0xffffU), __NV_E4M3)));
}

/// Eight codes times their square's scale in fp32, each rounded once to bf16: a chunk as the CPU's pack makes it.
__device__ inline void dequantise(std::uint32_t low, std::uint32_t high, float scale, std::uint32_t (&chunk)[4]) {
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    const float2 value = f8_values((pair < 2 ? low : high) >> (pair % 2 * 16));
    chunk[pair] = pack_bf16(value.x * scale, value.y * scale);
  }
}

}  // namespace reap::cuda
