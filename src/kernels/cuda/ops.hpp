#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.hpp"
#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/weight.hpp"

// The operations of the CUDA backend. Arguments are those of kernels/backend.hpp; pointers are to device memory unless
// a comment says host. Each queues its work on launch.stream and returns; spans and host arrays have been read by then.
namespace reap::cuda {

// rows.cu
void embed(const Launch& launch, const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens,
           std::int64_t rows, float* x);
void rms_norm(const Launch& launch, const float* x, const float* weight, float eps, std::int64_t rows,
              std::int64_t width, float* y, void* y_act);
void combine(const Launch& launch, const void* f, const std::int32_t* position, const float* gate_value,
             std::int64_t rows, std::int64_t top_k, std::int64_t hidden, float* x);
/// to[i] = from[row[i]], for rows of `row_bytes`.
void gather_rows(const Launch& launch, const void* from, const std::int32_t* row, std::int64_t rows,
                 std::int64_t row_bytes, void* to);

// rope.cu
void qk_norm_rope(const Launch& launch, const float* q, const float* k, const float* v, const float* q_weight,
                  const float* k_weight, const std::int32_t* position, const AttentionShape& shape, std::int64_t rows,
                  void* q_act, void* k_act, void* v_act);

// attention.cu
void attention(const Launch& launch, const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
               const AttentionShape& shape, void* out);

// route.cu: what route() does once the logits are there
void select_experts(const Launch& launch, const float* logits, const float* bias, std::int64_t rows,
                    std::int64_t experts, std::int64_t top_k, std::int32_t* expert, float* gate_value);

// group.cu: group_slots waits for the device, since `start` is host memory
void group_slots(const Launch& launch, const std::int32_t* expert, std::int64_t slots, std::int32_t first,
                 std::int64_t count, std::int32_t* order, std::int32_t* position, std::int64_t* start);
void slot_rows(const Launch& launch, const std::int32_t* slot, std::int64_t slots, std::int64_t top_k,
               std::int32_t* row);

// experts.cu
void experts(const Launch& launch, const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
             std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs, const SquareSums& inner);

// accumulate.cu
void accumulate(const Launch& launch, const std::int32_t* expert, const float* gate_value, const float* norm,
                const float* max_abs, const std::int32_t* position, const std::int32_t* group, std::int64_t rows,
                std::int64_t top_k, std::int64_t experts, std::int64_t* sums, float* max_abs_table,
                std::int64_t* bad_slot);
void record_bad_slot(const Launch& launch, const std::int64_t* bad_slot, std::int64_t call, const std::int32_t* expert,
                     const float* gate_value, const float* norm, const std::int32_t* position, BadSlot* record);

// accumulate_outputs.cu
void accumulate_pairs(const Launch& launch, const std::int32_t* expert, const float* gate_value, const void* f,
                      const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                      std::int64_t experts, std::int64_t* sums, std::int64_t* bad_slot);
void accumulate_outputs(const Launch& launch, const std::int32_t* expert, const void* f, const std::int32_t* position,
                        std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t* sums);

// accumulate_squares.cu: x is [.., stride], of which the first `width` count
void accumulate_squares(const Launch& launch, const void* x, std::int64_t stride, const std::int32_t* row,
                        std::span<const std::int64_t> start, std::int64_t width, const SquareSums& to);

// predictions.cu
void predict(const Launch& launch, const float* logits, const std::int32_t* target, std::int64_t rows,
             std::int64_t vocab, Prediction* prediction);
void diverge(const Launch& launch, const float* p_logits, const Prediction* p, const float* q_logits,
             const Prediction* q, std::int64_t rows, std::int64_t vocab, Divergence* divergence);

// quantize.cu: all but launch is host memory; waits for the device
void quantize(const Launch& launch, const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
              std::uint32_t* words, std::uint16_t* scales);

}  // namespace reap::cuda
