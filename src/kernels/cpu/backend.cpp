#include "kernels/cpu/backend.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/check.hpp"
#include "kernels/cpu/isa.hpp"

namespace reap {

std::unique_ptr<Backend> make_cpu_backend(Compute compute, int threads, CpuIsa isa) {
  REAP_CHECK(threads >= 1, "a backend of {} threads", threads);
  return std::make_unique<cpu::CpuBackend>(compute, threads, isa);
}

namespace cpu {

CpuBackend::CpuBackend(Compute compute, int threads, CpuIsa isa)
    : isa_{settle_isa(isa)}, run_{vector_ops(isa_), compute, threads}, products_{row_tile(isa_)}, workers_{threads} {}

std::string CpuBackend::numerics_id() const {
  const dnnl_version_t& onednn = *dnnl_version();
  return fmt::format("cpu onednn-{}.{}.{} {} {}-products tile{}x{}", onednn.major, onednn.minor, onednn.patch,
                     name_of(isa_), compute() == Compute::bf16 ? name_of(bf16_product_dtype(isa_)) : "F32",
                     products_.tile(), PackedWeight::kPanelRows);
}

void CpuBackend::upload(void* to, const void* from_host, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from_host, bytes);
}

void CpuBackend::download(void* to_host, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to_host, from, bytes);
}

void CpuBackend::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void CpuBackend::gather_rows(void* to, const void* from, const std::int32_t* row, std::int64_t rows,
                             std::int64_t row_bytes) {
  cpu::gather_rows(run_, from, row, rows, row_bytes, to);
}

void CpuBackend::zero(void* to, std::size_t bytes) {
  if (bytes > 0) std::memset(to, 0, bytes);
}

std::unique_ptr<Weight> CpuBackend::pack(const WeightSource& source, Compute precision) {
  const bool round = precision == Compute::bf16;
  return std::make_unique<PackedWeight>(source, round ? bf16_product_dtype(isa_) : DType::f32, round, products_,
                                        run_.vector, run_.threads);
}

void CpuBackend::embed(const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens,
                       std::int64_t rows, float* x) {
  cpu::embed(run_, table, dtype, hidden, tokens, rows, x);
}

void CpuBackend::rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width,
                          float* y, void* y_act) {
  cpu::rms_norm(run_, x, weight, eps, rows, width, y, y_act);
}

void CpuBackend::matmul(const void* x, std::int64_t rows, const Weight& w, float* out, bool add) {
  const RowSource source{x, activation_dtype(compute()), w.cols(), nullptr};
  cpu::matmul(run_, workers_, source, rows, static_cast<const PackedWeight&>(w), out, add);
}

void CpuBackend::qk_norm_rope(const float* q, const float* k, const float* v, const float* q_weight,
                              const float* k_weight, const std::int32_t* position, const AttentionShape& shape,
                              std::int64_t rows, void* q_act, void* k_act, void* v_act) {
  cpu::qk_norm_rope(run_, rope_, q, k, v, q_weight, k_weight, position, shape, rows, q_act, k_act, v_act);
}

void CpuBackend::attention(const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
                           const AttentionShape& shape, void* out) {
  cpu::attention(run_, q, k, v, start, shape, out);
}

void CpuBackend::route(const float* h, const Weight& gate, const float* bias, std::int64_t rows, std::int64_t top_k,
                       float* logits, std::int32_t* expert, float* gate_value) {
  const RowSource source{h, DType::f32, gate.cols(), nullptr};
  cpu::matmul(run_, workers_, source, rows, static_cast<const PackedWeight&>(gate), logits, false);
  select_experts(run_, logits, bias, rows, gate.rows(), top_k, expert, gate_value);
}

void CpuBackend::group_slots(const std::int32_t* expert, std::int64_t slots, std::int32_t first, std::int64_t count,
                             std::int32_t* order, std::int32_t* position, std::int64_t* start) {
  cpu::group_slots(expert, slots, first, count, order, position, start);
}

void CpuBackend::slot_rows(const std::int32_t* slot, std::int64_t slots, std::int64_t top_k, std::int32_t* row) {
  std::transform(slot, slot + slots, row,
                 [divisor = static_cast<std::int32_t>(top_k)](std::int32_t one) { return one / divisor; });
}

void CpuBackend::experts(const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                         std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs,
                         const SquareSums& inner) {
  experts_.run(run_, workers_, x, row, start, weights, f, norm, max_abs, inner);
}

void CpuBackend::combine(const void* f, const std::int32_t* position, const float* gate_value, std::int64_t rows,
                         std::int64_t top_k, std::int64_t hidden, float* x) {
  cpu::combine(run_, f, position, gate_value, rows, top_k, hidden, x);
}

void CpuBackend::accumulate(const std::int32_t* expert, const float* gate_value, const float* norm,
                            const float* max_abs, const std::int32_t* position, const std::int32_t* group,
                            std::int64_t rows, std::int64_t top_k, std::int64_t experts, std::int64_t* sums,
                            float* max_abs_table, std::int64_t* bad_slot) {
  cpu::accumulate(run_, expert, gate_value, norm, max_abs, position, group, rows, top_k, experts, sums, max_abs_table,
                  bad_slot);
}

void CpuBackend::accumulate_pairs(const std::int32_t* expert, const float* gate_value, const void* f,
                                  const std::int32_t* position, std::int64_t rows, std::int64_t top_k,
                                  std::int64_t hidden, std::int64_t experts, std::int64_t* sums,
                                  std::int64_t* bad_slot) {
  cpu::accumulate_pairs(run_, expert, gate_value, f, position, rows, top_k, hidden, experts, sums, bad_slot);
}

void CpuBackend::record_bad_slot(const std::int64_t* bad_slot, std::int64_t call, const std::int32_t* expert,
                                 const float* gate_value, const float* norm, const std::int32_t* position,
                                 BadSlot* record) {
  const std::int64_t slot = *bad_slot;
  if (slot == BadSlot::kNone || record->slot != BadSlot::kNone) return;
  *record = {slot, call, expert[slot], gate_value[slot], norm[position[slot]]};
}

void CpuBackend::accumulate_outputs(const std::int32_t* expert, const void* f, const std::int32_t* position,
                                    std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t* sums) {
  cpu::accumulate_outputs(run_, expert, f, position, rows, top_k, hidden, sums);
}

void CpuBackend::accumulate_squares(const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                                    std::int64_t width, const SquareSums& to) {
  cpu::accumulate_squares(run_, x, row, start, width, to);
}

void CpuBackend::accumulate_moments(const void* x, std::int64_t rows, std::int64_t width, const MomentSums& to) {
  cpu::accumulate_moments(run_, x, rows, width, to);
}

void CpuBackend::predict(const float* logits, const std::int32_t* target, std::int64_t rows, std::int64_t vocab,
                         Prediction* prediction) {
  cpu::predict(run_, logits, target, rows, vocab, prediction);
}

void CpuBackend::diverge(const float* p_logits, const Prediction* p, const float* q_logits, const Prediction* q,
                         std::int64_t rows, std::int64_t vocab, Divergence* divergence) {
  cpu::diverge(run_, p_logits, p, q_logits, q, rows, vocab, divergence);
}

void CpuBackend::quantize(const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
                          std::uint32_t* words, std::uint16_t* scales) {
  cpu::quantize(run_, source, spec, importance, words, scales);
}

void CpuBackend::round_with_feedback(const WeightSource& source, const QuantizeSpec& spec, const Feedback& feedback,
                                     const std::uint16_t* scales, std::uint32_t* words) {
  cpu::round_with_feedback(run_, source, spec, feedback, scales, words);
}

}  // namespace cpu
}  // namespace reap
