#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/buffer.hpp"
#include "kernels/dtype.hpp"
#include "kernels/fields.hpp"
#include "kernels/gptq.hpp"
#include "kernels/moments.hpp"
#include "kernels/pairs.hpp"
#include "kernels/quantize.hpp"
#include "kernels/squares.hpp"

namespace reap {

/// What the matrix products are computed in. Accumulation, norms, softmax, router and the residual stream are fp32 in both.
enum class Compute : std::uint8_t { fp32, bf16 };

/// The type of activations that enter matrix products: f32 or bf16.
constexpr DType activation_dtype(Compute compute) { return compute == Compute::fp32 ? DType::f32 : DType::bf16; }

/// FP8 checkpoints scale their weights in square blocks of this many rows and columns.
constexpr std::int64_t kScaleBlock = 128;

/// A weight matrix as the checkpoint stores it, in host memory: w = data, times scale_inv of its block where there is one.
struct WeightSource {
  const std::byte* data;   // [rows, cols] row-major, f32, f16, bf16 or f8_e4m3; need not be aligned
  DType dtype;
  std::int64_t rows;       // outputs N
  std::int64_t cols;       // inputs K
  const float* scale_inv;  // [ceil(rows/128), ceil(cols/128)] for f8_e4m3, else null
};

/// Puts bytes [begin, begin + into.size()) of a weight's data, as stored, into host memory. Open to several threads.
using ReadBytes = std::function<void(std::uint64_t begin, std::span<std::byte> into)>;

/// A weight matrix laid out for multiplication by the backend that made it. Stays in its stored type where that is
/// smaller (bf16, fp8 + scales) and is expanded on its way into the product.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  virtual std::int64_t bytes() const = 0;  // memory held
};

/// One expert: f(x) = w2 (silu(w1 x) * w3 x).
struct ExpertWeights {
  const Weight* w1;  // [inner, hidden]
  const Weight* w3;  // [inner, hidden]
  const Weight* w2;  // [hidden, inner]
};

struct AttentionShape {
  std::int64_t heads;
  std::int64_t kv_heads;    // divides heads; query head h reads kv head h / (heads / kv_heads)
  std::int64_t head_dim;
  std::int64_t rotary_dim;  // even; the first rotary_dim of head_dim dims are rotated, in pairs (i, i + rotary_dim/2)
  double rope_theta;
  float norm_eps;
};

/// What a row of logits says of the next token: p = softmax over the vocabulary.
struct Prediction {
  double sum;        // of e^(logit - max) over the vocabulary
  double nll;        // -ln p of the token that came; 0 when none is given
  float max;         // the largest logit
  std::int32_t top;  // its id, the lowest of equals
};

/// A slot that accumulate() or accumulate_pairs() could not add, and what it held.
struct BadSlot {
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  std::int64_t slot = kNone;
  std::int64_t call = 0;  // as record_bad_slot() was told
  std::int32_t expert = 0;
  float gate_value = 0;
  float norm = 0;
};

/// How far a prediction q is from a prediction p of the same row.
struct Divergence {
  double kl;       // sum p ln(p / q), at least 0
  double overlap;  // sum min(p, q)
};

/// THE list of operations of the forward pass on one device.
///
/// Pointers are to memory() of this backend unless a comment says host. "act" is an array of activation_dtype(compute()).
/// Matrices are row-major and dense. Every operation accepts zero rows. A row of a result never depends, in any
/// bit, on the other rows of the call nor on the number of threads: that is what makes results independent of the grid.
/// Calls run in order; synchronize() waits for them. What one backend has made, others of its device may use after that.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual Compute compute() const = 0;
  /// All that the bits of a result depend on besides the input: device kind, instruction set, library versions.
  virtual std::string numerics_id() const = 0;
  virtual const Memory& memory() const = 0;
  /// `from_host` has been read on return.
  virtual void upload(void* to, const void* from_host, std::size_t bytes) = 0;
  /// `to_host` is filled by the next synchronize(), and is nobody else's until then.
  virtual void download(void* to_host, const void* from, std::size_t bytes) = 0;
  /// From memory() to memory().
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  /// to[i] = from[row[i]], rows of any type.
  virtual void gather_rows(void* to,                 // [rows, row_bytes]
                           const void* from,         // [.., row_bytes]
                           const std::int32_t* row,  // host, [rows]; has been read on return
                           std::int64_t rows, std::int64_t row_bytes) = 0;
  virtual void zero(void* to, std::size_t bytes) = 0;
  virtual void synchronize() = 0;

  /// Lays a weight out for products in `precision` (the router's is fp32 whatever compute() says). For bf16 products
  /// weights are rounded to nearest even; fp8 is dequantised in fp32 (q * scale_inv) first.
  virtual std::unique_ptr<Weight> pack(const WeightSource& source, Compute precision) = 0;
  /// The same for data that are still to be read: source.data is null. `read` is no longer called on return.
  /// @throws what it throws
  virtual std::unique_ptr<Weight> read_weight(const WeightSource& source, const ReadBytes& read, Compute precision);

  /// x[r] = table[tokens[r]] as fp32. Token ids must be in [0, vocab): the caller checks.
  virtual void embed(const void* table,           // [vocab, hidden] of `dtype` (f32, f16, bf16), raw
                     DType dtype, std::int64_t hidden,
                     const std::int32_t* tokens,  // [rows]
                     std::int64_t rows,
                     float* x) = 0;               // [rows, hidden]

  /// RMSNorm over each row: y = x / sqrt(mean(x^2) + eps) * weight.
  virtual void rms_norm(const float* x,       // [rows, width]
                        const float* weight,  // [width]
                        float eps, std::int64_t rows, std::int64_t width,
                        float* y,             // [rows, width] fp32, or null
                        void* y_act) = 0;     // [rows, width] act, or null

  /// out = x w^T, fp32 accumulators. With `add`, out += x w^T (the residual stream).
  virtual void matmul(const void* x,  // [rows, w.cols()] act
                      std::int64_t rows, const Weight& w,
                      float* out,     // [rows, w.rows()]
                      bool add) = 0;

  /// q = rope(rms_norm(q)), k = rope(rms_norm(k)), both norms over all heads at once; v is only converted.
  virtual void qk_norm_rope(const float* q,                 // [rows, heads * head_dim]
                            const float* k, const float* v, // [rows, kv_heads * head_dim]
                            const float* q_weight,          // [heads * head_dim]
                            const float* k_weight,          // [kv_heads * head_dim]
                            const std::int32_t* position,   // [rows] position within the sample, from 0
                            const AttentionShape& shape, std::int64_t rows,
                            void* q_act, void* k_act, void* v_act) = 0;  // same shapes, act

  /// Causal attention inside each sample, scale 1/sqrt(head_dim). Memory linear in the sample's length.
  virtual void attention(const void* q,                        // [rows, heads * head_dim] act
                         const void* k, const void* v,         // [rows, kv_heads * head_dim] act
                         std::span<const std::int64_t> start,  // host, [samples + 1]: first row of each sample, last = rows
                         const AttentionShape& shape,
                         void* out) = 0;                       // [rows, heads * head_dim] act

  /// Sigmoid router with a correction bias: s = sigmoid(h gate^T) in fp32; the top_k of s + bias are chosen (ties: lower
  /// id), ascending by id; the gate value is s / sum of the chosen s. The bias never enters the gate value.
  virtual void route(const float* h,          // [rows, gate.cols()] fp32
                     const Weight& gate,      // [experts, hidden], packed for fp32
                     const float* bias,       // [experts]
                     std::int64_t rows, std::int64_t top_k,
                     float* logits,           // [rows, experts] h gate^T, before the sigmoid
                     std::int32_t* expert,    // [rows, top_k] ascending
                     float* gate_value) = 0;  // [rows, top_k]

  /// Groups slots by expert, stably: a counting sort of expert[0..slots) over [first, first + count).
  /// Slots of other experts get position -1.
  virtual void group_slots(const std::int32_t* expert,  // [slots]
                           std::int64_t slots, std::int32_t first, std::int64_t count,
                           std::int32_t* order,         // [grouped slots] the slot at each grouped place
                           std::int32_t* position,      // [slots] the grouped place of each slot, or -1
                           std::int64_t* start) = 0;    // host, [count + 1] first grouped place of each expert

  /// The row of each slot, where every row has top_k slots.
  virtual void slot_rows(const std::int32_t* slot,  // [slots]
                         std::int64_t slots, std::int64_t top_k,
                         std::int32_t* row) = 0;    // [slots] slot / top_k

  /// f of every grouped slot, its norm and its largest magnitude, both taken from the fp32 values before rounding to act.
  virtual void experts(const void* x,                          // [x_rows, hidden] act
                       const std::int32_t* row,                // [slots] row of x of each grouped slot
                       std::span<const std::int64_t> start,    // host, [experts + 1], as group_slots gives it
                       std::span<const ExpertWeights> weights, // [experts]
                       void* f,                                // [slots, hidden] act, in grouped order
                       float* norm,                            // [slots] ||f||_2 (sum of squares in fp64, rounded once)
                       float* max_abs,                         // [slots] max |f|
                       const SquareSums& inner) = 0;           // of silu(w1 x) * w3 x as it enters w2, per expert

  /// x[r] += sum over j ascending of gate_value[r, j] * f[position[r, j]], in fp32.
  virtual void combine(const void* f,                 // [slots, hidden] act
                       const std::int32_t* position,  // [rows, top_k] row of f
                       const float* gate_value,       // [rows, top_k]
                       std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                       float* x) = 0;                 // [rows, hidden]

  /// Adds a block's slots to the field sums of one layer, exactly (fixed128.hpp), and raises max_abs.
  virtual void accumulate(const std::int32_t* expert,    // [rows, top_k] in [0, experts)
                          const float* gate_value,       // [rows, top_k]
                          const float* norm,             // [slots] by grouped place
                          const float* max_abs,          // [slots] by grouped place
                          const std::int32_t* position,  // [rows, top_k] grouped place
                          const std::int32_t* group,     // [rows] in [0, groups)
                          std::int64_t rows, std::int64_t top_k, std::int64_t experts,
                          std::int64_t* sums,            // [groups, experts, kSumsPerExpert] +=
                          float* max_abs_table,          // [groups, experts] max=
                          std::int64_t* bad_slot) = 0;   // [1] lowered to the first slot whose value is not finite or
                                                         // out of range; such a slot is not added

  /// Adds g_i g_j <f_i, f_j> of every token, for each pair i <= j of its experts, to the sums of one layer: a term is
  /// computed once in fp64, in an order that follows from `hidden` alone, and added exactly as signed digits.
  virtual void accumulate_pairs(const std::int32_t* expert,    // [rows, top_k] in [0, experts), ascending in each row
                                const float* gate_value,       // [rows, top_k]
                                const void* f,                 // [slots, hidden] act, by grouped place
                                const std::int32_t* position,  // [rows, top_k] grouped place
                                std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t experts,
                                std::int64_t* sums,            // [pair_count(experts), kDigits] +=, by pair_index()
                                std::int64_t* bad_slot) = 0;   // [1] lowered to the first slot with a term that is not
                                                               // finite or out of range; such a term is not added

  /// Keeps what the host may want to say of the slot that accumulate() or accumulate_pairs() has just named, so that it
  /// need not ask before the arrays take the next values.
  virtual void record_bad_slot(const std::int64_t* bad_slot,               // [1] as they left it
                               std::int64_t call,                          // a number to tell this call by
                               const std::int32_t* expert,                 // [rows, top_k], and so on: as they had it
                               const float* gate_value, const float* norm,
                               const std::int32_t* position,
                               BadSlot* record) = 0;                       // [1] kept when it has a slot already

  /// Adds the elements of f of every slot to those of its expert, each rounded to nearest even in kOutputFractionBits.
  /// The sums mean something only where count * max_abs of an expert is below 2^31: the caller checks.
  virtual void accumulate_outputs(const std::int32_t* expert,    // [rows, top_k] in [0, experts)
                                  const void* f,                 // [slots, hidden] act, by grouped place
                                  const std::int32_t* position,  // [rows, top_k] grouped place
                                  std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                                  std::int64_t* sums) = 0;       // [experts, hidden] +=

  /// Adds the squares of the elements of rows to those of their group: exact in fp64, rounded once, to nearest even.
  virtual void accumulate_squares(const void* x,                        // [.., width] act
                                  const std::int32_t* row,              // row of x at each place, or null: its number
                                  std::span<const std::int64_t> start,  // host, [groups + 1] first place of each group
                                  std::int64_t width, const SquareSums& to) = 0;

  /// Adds the products of channels of the same block, over rows, to the moments of an input: in fp32 over 512 rows at a
  /// time, then in fixed point. The bits follow from the rows of a call.
  virtual void accumulate_moments(const void* x,  // [rows, width] act
                                  std::int64_t rows, std::int64_t width, const MomentSums& to) = 0;

  /// The prediction of each row. A row with a logit that is not finite has an nll that is not finite.
  virtual void predict(const float* logits,          // [rows, vocab]
                       const std::int32_t* target,   // [rows] in [0, vocab), or -1 = none
                       std::int64_t rows, std::int64_t vocab,
                       Prediction* prediction) = 0;  // [rows]

  /// Compares the predictions of two models row by row; of logits that are not finite the result is not either.
  virtual void diverge(const float* p_logits,                       // [rows, vocab]
                       const Prediction* p,                         // [rows] predict() of them
                       const float* q_logits, const Prediction* q,  // likewise
                       std::int64_t rows, std::int64_t vocab,
                       Divergence* divergence) = 0;                 // [rows]

  /// Rounds a weight to 4 bits as AutoRound does (docs/numerics.md), the same bits on every backend; fp8 is dequantised
  /// to bf16 first. All memory is host memory, and done with on return.
  /// @throws Error(numerics) naming the row when a weight is not finite or too large for a scale in fp16
  virtual void quantize(const WeightSource& source, const QuantizeSpec& spec,
                        const Importance* importance,  // null: all inputs alike; rtn asks for none
                        std::uint32_t* words,          // [rows, cols / 8] q + 8, the first of eight inputs lowest
                        std::uint16_t* scales) = 0;    // [rows, cols / group] f16, about half of them negative

  /// Rounds a weight again, with the scales that quantize() has chosen, so that later inputs of a block make up for the
  /// errors of earlier ones (gptq.hpp).
  virtual void round_with_feedback(const WeightSource& source, const QuantizeSpec& spec, const Feedback& feedback,
                                   const std::uint16_t* scales,  // [rows, cols / group] f16
                                   std::uint32_t* words) = 0;    // [rows, cols / 8]
};

/// The instruction sets that the CPU backend knows, oldest first. `automatic` takes the newest that the machine has.
enum class CpuIsa : std::uint8_t { automatic, avx2, avx512, avx512_bf16, amx };

/// "avx2", "avx512", "avx512_bf16", "amx", "auto".
std::string_view name_of(CpuIsa isa);

/// Settles, once per process, the instruction set that every CPU backend computes with. oneDNN is bound to it, so it
/// has to be called before any other use of oneDNN.
/// @return the instruction set: `wanted`, or with `automatic` the newest that the machine and ONEDNN_MAX_CPU_ISA allow
/// @throws Error(usage) when the machine lacks `wanted` or another one was settled before,
///         Error(bad_input) when the machine lacks even AVX2
CpuIsa settle_isa(CpuIsa wanted);

/// The CPU backend: matrix products by oneDNN, the rest vectorised loops.
/// @param threads  OpenMP threads of this rank, at least 1
/// @throws Error(usage) when the machine lacks `isa`, Error(bad_input) when it lacks even AVX2
std::unique_ptr<Backend> make_cpu_backend(Compute compute, int threads, CpuIsa isa);

}  // namespace reap
