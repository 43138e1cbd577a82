#include "kernels/cpu/vector_ops.hpp"

#include "kernels/cpu/vector_kernels.hpp"

namespace reap::REAP_ISA {

const VectorOps& vector_ops() {
  static constexpr VectorOps ops{
      .bf16_to_f32 = bf16_to_f32,
      .f16_to_f32 = f16_to_f32,
      .f32_to_bf16 = f32_to_bf16,
      .rms_norm = rms_norm,
      .rope = rope,
      .sigmoid = sigmoid,
      .combine = combine,
      .attention_queries = attention_queries,
      .attention_scratch = attention_scratch,
      .attention = attention,
      .f8_to_f32 = f8_to_f32,
      .f8_to_bf16 = f8_to_bf16,
      .round_to_bf16 = round_to_bf16,
      .silu_mul = silu_mul,
      .square_sum_and_max = square_sum_and_max,
      .pair_dots = pair_dots,
      .add_fixed = add_fixed,
      .add_squares = add_squares,
      .moment_tile = moment_tile,
      .add_moments = add_moments,
      .max_of = max_of,
      .exp_sum = exp_sum,
      .divergence = divergence,
      .quantize = quantize,
      .feedback_rows = feedback_rows,
      .round_with_feedback = round_with_feedback,
  };
  return ops;
}

}  // namespace reap::REAP_ISA
