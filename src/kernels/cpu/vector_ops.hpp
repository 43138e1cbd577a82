#pragma once

#include <cstdint>

#include "kernels/dtype.hpp"

namespace reap {

enum class CpuIsa : std::uint8_t;

/// One tile of causal attention: consecutive queries of one sample, under all the query heads of one kv head.
struct AttentionTile {
  const void* q;             // first query of the tile, first head of the group
  const void* k;             // first row of the sample, the kv head
  const void* v;             // likewise
  void* out;                 // as q
  bool is_bf16;              // all four are bf16, else fp32
  std::int64_t q_stride;     // elements from a row to the next, q and out
  std::int64_t kv_stride;    // likewise, k and v
  std::int64_t first_query;  // position of the first query within the sample
  std::int64_t queries;      // at most attention_queries(group)
  std::int64_t group;        // query heads per kv head, head_dim elements apart
  std::int64_t head_dim;
};

/// One row of a weight to be rounded to 4 bits in groups.
struct QuantizeRow {
  const void* weights;  // [groups * group] of dtype, any alignment
  DType dtype;          // f32, f16 or bf16
  std::int64_t groups;
  std::int64_t group;                // 32, 64 or 128
  bool search;                       // for the best scale, else by the extreme value
  const float* importance;           // [groups * group], or null: all alike
  const std::uint8_t* from_weights;  // [groups] where not 0, the size of the weights stands in for importance
  std::uint32_t* words;              // [groups * group / 8]
  std::uint16_t* scales;             // [groups] f16
};

/// Rows of a weight, a lane each, whose inputs of one block are rounded to 4 bits with feedback (gptq.hpp).
struct FeedbackTile {
  const float* weights;  // [inputs, feedback_rows()]
  const float* scales;   // [inputs / group, feedback_rows()] not 0
  const float* factors;  // [inputs * (inputs + 1) / 2] the lower triangle
  std::int64_t inputs;   // a multiple of group
  std::int64_t group;    // a multiple of 8
  float* errors;         // [inputs, feedback_rows()] scratch
  std::uint32_t* words;  // [inputs / 8, feedback_rows()]
};

/// Channels that moment_tile() takes of either side.
constexpr std::int64_t kMomentPanel = 32;

/// The loops that gain from wide vectors, for one instruction set: each works on one row or tile, without threads.
/// Their sources (kernels/cpu/vector_*.cpp) are compiled once per instruction set, so they hold no templates or inline
/// functions of a library: the linker could take such a function's AVX-512 copy for the whole program.
/// Pointers need no alignment beyond that of their elements; results do not depend on it.
struct VectorOps {
  void (*bf16_to_f32)(const bf16* from, std::int64_t count, float* to);
  void (*f16_to_f32)(const std::uint16_t* from, std::int64_t count, float* to);
  void (*f32_to_bf16)(const float* from, std::int64_t count, bf16* to);

  /// y = x / sqrt(mean(x^2) + eps) * weight; y may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t width, float* y);

  /// Rotates pairs (i, i + half) of each head in place; angle: [half] cosines, then [half] sines.
  void (*rope)(float* row, const float* angle, std::int64_t heads, std::int64_t head_dim, std::int64_t half);

  void (*sigmoid)(const float* x, std::int64_t count, float* s);

  /// x += sum over j ascending of gate[j] * f[position[j]], where f is [.., width] fp32 or bf16.
  void (*combine)(const void* f, bool is_bf16, const std::int32_t* position, const float* gate, std::int64_t top_k,
                  std::int64_t width, float* x);

  /// Queries that one tile takes when `group` query heads share a kv head.
  std::int64_t (*attention_queries)(std::int64_t group);
  /// Floats of scratch, 64-byte aligned, that attention() needs.
  std::int64_t (*attention_scratch)(std::int64_t group, std::int64_t head_dim);
  void (*attention)(const AttentionTile& tile, float* scratch);

  /// Codes of f8_e4m3 times their scale, in fp32; for bf16 then rounded to nearest even.
  void (*f8_to_f32)(const std::uint8_t* from, std::int64_t count, float scale, float* to);
  void (*f8_to_bf16)(const std::uint8_t* from, std::int64_t count, float scale, bf16* to);

  /// What bf16 would keep of each value, as f32; `to` may be `from`.
  void (*round_to_bf16)(const float* from, std::int64_t count, float* to);

  /// product = silu(gate) * up; `product` may be `gate`.
  void (*silu_mul)(const float* gate, const float* up, std::int64_t count, float* product);

  /// Sum of squares in fp64; the largest magnitude, NaN above all, goes to `max_abs`.
  double (*square_sum_and_max)(const float* x, std::int64_t count, float* max_abs);

  /// dots = <f[position[i]], f[position[j]]> in fp64 for the pairs i <= j < top_k, by pair_index(); f as in combine().
  void (*pair_dots)(const void* f, bool is_bf16, const std::int32_t* position, std::int64_t top_k, std::int64_t width,
                    double* dots);

  /// sums += elements [first, first + count) of `from`, fp32 or bf16, in units of 2^-kOutputFractionBits.
  void (*add_fixed)(const void* from, bool is_bf16, std::int64_t first, std::int64_t count, std::int64_t* sums);

  /// Adds the squares of elements [first, first + count) of `from`, fp32 or bf16, to their digits (squares.hpp).
  /// @return whether all were finite and in range; others add nothing
  bool (*add_squares)(const void* from, bool is_bf16, std::int64_t first, std::int64_t count, std::int64_t* low,
                      std::int64_t* high);

  /// sums[i, j] = sum over rows of a[row, i] * b[row, j]; a, b: [rows, kMomentPanel], sums: [kMomentPanel,
  /// kMomentPanel].
  void (*moment_tile)(const float* a, const float* b, std::int64_t rows, float* sums);
  /// sums += kMomentPanel values in units of 2^-kMomentFractionBits, those that fit; false when not all do, or when a
  /// sum leaves its range.
  bool (*add_moments)(const float* from, std::int64_t* sums);

  /// The largest value and its place, the first of equals; NaN is passed over. count > 0.
  float (*max_of)(const float* x, std::int64_t count, std::int64_t* place);
  /// Sum of e^(x - max) in fp64, no x above max; NaN when an x is not finite.
  double (*exp_sum)(const float* x, std::int64_t count, float max);
  /// With a = e^(p - p_max), b = e^(q - q_max): `kl` = sum of a (p - q - shift), `overlap` = sum of min(a, b * scale).
  void (*divergence)(const float* p, float p_max, const float* q, float q_max, std::int64_t count, double shift,
                     double scale, double* kl, double* overlap);

  /// Rounds to 4 bits as AutoRound does, bit for bit; false when a weight or a scale is not finite.
  bool (*quantize)(const QuantizeRow& row);

  /// Rows that a tile of round_with_feedback() has.
  std::int64_t (*feedback_rows)();
  void (*round_with_feedback)(const FeedbackTile& tile);
};

/// The table for `isa`, which the machine must have (not `automatic`).
const VectorOps& vector_ops(CpuIsa isa);

}  // namespace reap
