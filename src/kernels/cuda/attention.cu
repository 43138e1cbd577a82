#include "kernels/cuda/attention_call.hpp"
#include "kernels/cuda/check.hpp"
#include "kernels/cuda/ops.hpp"

namespace reap::cuda {

void attention(const Launch& launch, const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
               const AttentionShape& shape, void* out) {
  REAP_CUDA_REQUIRE(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0,
                    "heads do not share their kv heads evenly");
  REAP_CUDA_REQUIRE(shape.head_dim > 0 && shape.head_dim <= kMostHeadDim,
                    "a head_dim of " + std::to_string(shape.head_dim));
  if (launch.compute == Compute::fp32) {
    attention_fp32(launch, attention_call<float>(q, k, v, shape, out), start);
  } else {
    attention_bf16(launch, attention_call<__nv_bfloat16>(q, k, v, shape, out), start);
  }
}

}  // namespace reap::cuda
