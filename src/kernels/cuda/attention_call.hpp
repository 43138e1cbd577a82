#pragma once

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/backend.hpp"
#include "kernels/cuda/attention_tiles.hpp"
#include "kernels/cuda/launch.hpp"

namespace reap::cuda {

/// One launch of attention over the samples of `tiles`. Rows of q and out hold all heads, rows of k and v all kv heads.
template <class T>
struct AttentionCall {
  SampleTiles tiles;
  const T* q;
  const T* k;
  const T* v;
  T* out;
  std::int32_t heads;
  std::int32_t group;  // query heads per kv head
  std::int32_t head_dim;
  std::int64_t q_stride;
  std::int64_t kv_stride;
  float scale;  // 1 / sqrt(head_dim)
};
static_assert(sizeof(AttentionCall<float>) < 32'000, "kernel parameters end at 32,764 bytes");

constexpr std::int64_t kMostHeadDim = 256;

/// What both kernels' calls share; `tiles` is still to be set.
template <class T>
AttentionCall<T> attention_call(const void* q, const void* k, const void* v, const AttentionShape& shape, void* out) {
  return {.tiles = {},
          .q = static_cast<const T*>(q),
          .k = static_cast<const T*>(k),
          .v = static_cast<const T*>(v),
          .out = static_cast<T*>(out),
          .heads = static_cast<std::int32_t>(shape.heads),
          .group = static_cast<std::int32_t>(shape.heads / shape.kv_heads),
          .head_dim = static_cast<std::int32_t>(shape.head_dim),
          .q_stride = shape.heads * shape.head_dim,
          .kv_stride = shape.kv_heads * shape.head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
}

// attention_fp32.cu, attention_bf16.cu
void attention_fp32(const Launch& launch, AttentionCall<float> call, std::span<const std::int64_t> start);
void attention_bf16(const Launch& launch, AttentionCall<__nv_bfloat16> call, std::span<const std::int64_t> start);

}  // namespace reap::cuda
