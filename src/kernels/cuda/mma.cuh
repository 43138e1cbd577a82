#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/fragments.hpp"

// The instructions of a tile product on sm_80 and later, one function each.

namespace reap::cuda {

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// 16 bytes from global to shared memory, of which `bytes` are read and the rest become zero.
/// Both addresses are multiples of 16.
__device__ inline void copy_async(std::uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

/// Closes the group of this thread's copies so far.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `Groups` of this thread's groups are still under way.
template <int Groups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

/// 16 bytes by an ordinary store.
__device__ inline void store_chunk(std::uint32_t to, const std::uint32_t (&words)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]),
               "r"(words[3])
               : "memory");
}

__device__ inline void load_chunk(std::uint32_t (&words)[4], std::uint32_t from) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(from)
               : "memory");
}

/// A chunk of T to shared memory: the first `count` elements, then zeros. `aligned`: `from` is a multiple of 16 bytes.
template <class T>
__device__ inline void copy_chunk(std::uint32_t to, const T* from, int count, bool aligned) {
  constexpr int kElements = kChunkBytes / static_cast<int>(sizeof(T));
  const int elements = count < 0 ? 0 : count < kElements ? count : kElements;
  if (aligned) {
    copy_async(to, from, elements * static_cast<int>(sizeof(T)));
    return;
  }
  std::uint32_t words[4] = {};
  constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    if (i >= elements) continue;
    std::uint32_t bits = 0;
    if constexpr (sizeof(T) == 1) bits = *reinterpret_cast<const std::uint8_t*>(from + i);
    if constexpr (sizeof(T) == 2) bits = *reinterpret_cast<const std::uint16_t*>(from + i);
    if constexpr (sizeof(T) == 4) bits = *reinterpret_cast<const std::uint32_t*>(from + i);
    words[i / kPerWord] |= bits << (i % kPerWord * 8 * static_cast<int>(sizeof(T)) % 32);
  }
  store_chunk(to, words);
}

/// Four 8 x 8 tiles of 16-bit elements; each lane names a row of one of them (fragments.hpp).
__device__ inline void load_matrices(std::uint32_t (&words)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(from)
               : "memory");
}

__device__ inline void load_matrices_transposed(std::uint32_t (&words)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(from)
               : "memory");
}

/// sum += a b: 16 x 16 by 16 x 8, bf16 in, fp32 accumulators.
__device__ inline void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two values rounded to nearest even, the first in the lower half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/// Stores two neighbours as bf16. `paired`: both exist and the address is a multiple of 4; else only the first `count`.
__device__ inline void store_bf16(__nv_bfloat16* to, float first, float second, bool paired, std::int64_t count) {
  if (paired && count > 1) {
    *reinterpret_cast<std::uint32_t*>(to) = pack_bf16(first, second);
    return;
  }
  if (count > 0) to[0] = __float2bfloat16_rn(first);
  if (count > 1) to[1] = __float2bfloat16_rn(second);
}

}  // namespace reap::cuda
