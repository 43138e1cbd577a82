#pragma once

// The functions of VectorOps in the build at hand (vector_math.hpp). Included by kernels/cpu/vector_*.cpp only.

#include "kernels/cpu/vector_ops.hpp"

namespace reap::REAP_ISA {

const VectorOps& vector_ops();

void bf16_to_f32(const bf16* from, std::int64_t count, float* to);
void f16_to_f32(const std::uint16_t* from, std::int64_t count, float* to);
void f32_to_bf16(const float* from, std::int64_t count, bf16* to);
void rms_norm(const float* x, const float* weight, float eps, std::int64_t width, float* y);
void rope(float* row, const float* angle, std::int64_t heads, std::int64_t head_dim, std::int64_t half);
void sigmoid(const float* x, std::int64_t count, float* s);
void combine(const void* f, bool is_bf16, const std::int32_t* position, const float* gate, std::int64_t top_k,
             std::int64_t width, float* x);
std::int64_t attention_queries(std::int64_t group);
std::int64_t attention_scratch(std::int64_t group, std::int64_t head_dim);
void attention(const AttentionTile& tile, float* scratch);
void f8_to_f32(const std::uint8_t* from, std::int64_t count, float scale, float* to);
void f8_to_bf16(const std::uint8_t* from, std::int64_t count, float scale, bf16* to);
void round_to_bf16(const float* from, std::int64_t count, float* to);
void silu_mul(const float* gate, const float* up, std::int64_t count, float* product);
double square_sum_and_max(const float* x, std::int64_t count, float* max_abs);
void pair_dots(const void* f, bool is_bf16, const std::int32_t* position, std::int64_t top_k, std::int64_t width,
               double* dots);
void add_fixed(const void* from, bool is_bf16, std::int64_t first, std::int64_t count, std::int64_t* sums);
bool add_squares(const void* from, bool is_bf16, std::int64_t first, std::int64_t count, std::int64_t* low,
                 std::int64_t* high);
void moment_tile(const float* a, const float* b, std::int64_t rows, float* sums);
bool add_moments(const float* from, std::int64_t* sums);
float max_of(const float* x, std::int64_t count, std::int64_t* place);
double exp_sum(const float* x, std::int64_t count, float max);
void divergence(const float* p, float p_max, const float* q, float q_max, std::int64_t count, double shift,
                double scale, double* kl, double* overlap);
bool quantize(const QuantizeRow& row);
std::int64_t feedback_rows();
void round_with_feedback(const FeedbackTile& tile);

}  // namespace reap::REAP_ISA
