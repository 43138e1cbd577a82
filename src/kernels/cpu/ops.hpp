#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/vector_ops.hpp"

// The operations of the CPU backend that are no matrix products. Arguments are those of kernels/backend.hpp.
namespace reap::cpu {

/// What every operation runs with.
struct Run {
  const VectorOps& vector;
  Compute compute;
  int threads;
};

/// Stores fp32 values as activations: act[offset..] = from[0..count).
void to_act(const Run& run, const float* from, std::int64_t count, void* act, std::int64_t offset);

void embed(const Run& run, const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens,
           std::int64_t rows, float* x);

void rms_norm(const Run& run, const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width,
              float* y, void* y_act);

/// Cosines and sines by position, kept from call to call: every layer asks for the same ones.
class RopeTable {
 public:
  /// Makes the table hold positions [0, positions) of `shape`.
  void cover(const AttentionShape& shape, std::int64_t positions, int threads);
  /// [rotary_dim / 2] cosines, then as many sines.
  const float* at(std::int64_t position) const { return angles_.data() + position * rotary_dim_; }

 private:
  std::int64_t rotary_dim_ = 0;
  double theta_ = 0;
  std::int64_t positions_ = 0;
  std::vector<float> angles_;  // [positions, rotary_dim]
};

void qk_norm_rope(const Run& run, RopeTable& table, const float* q, const float* k, const float* v,
                  const float* q_weight, const float* k_weight, const std::int32_t* position,
                  const AttentionShape& shape, std::int64_t rows, void* q_act, void* k_act, void* v_act);

void attention(const Run& run, const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
               const AttentionShape& shape, void* out);

/// What route() does once the logits are there. A NaN score wins, so that the gate values of its row are NaN.
void select_experts(const Run& run, const float* logits, const float* bias, std::int64_t rows, std::int64_t experts,
                    std::int64_t top_k, std::int32_t* expert, float* gate_value);

void group_slots(const std::int32_t* expert, std::int64_t slots, std::int32_t first, std::int64_t count,
                 std::int32_t* order, std::int32_t* position, std::int64_t* start);

void gather_rows(const Run& run, const void* from, const std::int32_t* row, std::int64_t rows, std::int64_t row_bytes,
                 void* to);

void combine(const Run& run, const void* f, const std::int32_t* position, const float* gate_value, std::int64_t rows,
             std::int64_t top_k, std::int64_t hidden, float* x);

void accumulate(const Run& run, const std::int32_t* expert, const float* gate_value, const float* norm,
                const float* max_abs, const std::int32_t* position, const std::int32_t* group, std::int64_t rows,
                std::int64_t top_k, std::int64_t experts, std::int64_t* sums, float* max_abs_table,
                std::int64_t* bad_slot);

void accumulate_pairs(const Run& run, const std::int32_t* expert, const float* gate_value, const void* f,
                      const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                      std::int64_t experts, std::int64_t* sums, std::int64_t* bad_slot);

void accumulate_outputs(const Run& run, const std::int32_t* expert, const void* f, const std::int32_t* position,
                        std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t* sums);

void accumulate_squares(const Run& run, const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                        std::int64_t width, const SquareSums& to);

void accumulate_moments(const Run& run, const void* x, std::int64_t rows, std::int64_t width, const MomentSums& to);

void predict(const Run& run, const float* logits, const std::int32_t* target, std::int64_t rows, std::int64_t vocab,
             Prediction* prediction);

void diverge(const Run& run, const float* p_logits, const Prediction* p, const float* q_logits, const Prediction* q,
             std::int64_t rows, std::int64_t vocab, Divergence* divergence);

void quantize(const Run& run, const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
              std::uint32_t* words, std::uint16_t* scales);

/// Dequantises one row of an fp8 weight.
void widen_row(const VectorOps& vector, const WeightSource& source, std::int64_t row, bf16* to);

void round_with_feedback(const Run& run, const WeightSource& source, const QuantizeSpec& spec, const Feedback& feedback,
                         const std::uint16_t* scales, std::uint32_t* words);

}  // namespace reap::cpu
