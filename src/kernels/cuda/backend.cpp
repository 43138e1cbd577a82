#include "kernels/cuda/backend.hpp"

#include <cublasLt.h>

#include <cstring>
#include <span>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/memory_cache.hpp"
#include "kernels/cuda/nccl.hpp"
#include "kernels/cuda/ops.hpp"

namespace reap::cuda {
namespace {

/// From here on a transfer is worth several threads.
constexpr std::size_t kLargeBytes = std::size_t{4} << 20;

[[noreturn]] void fail_moments() {
  throw Error(ExitCode::usage, "--collect moments: GPUs do not sum moments of inputs; give --device cpu as well");
}

[[noreturn]] void fail_feedback() {
  throw Error(ExitCode::usage, "--method gptq: GPUs do not round with feedback; give --device cpu as well");
}

cudaDeviceProp properties_of(int device) {
  cudaDeviceProp properties;
  REAP_CUDA(cudaGetDeviceProperties(&properties, device));
  return properties;
}

DeviceInfo describe(int device, const cudaDeviceProp& properties) {
  return {device, properties.major * 10 + properties.minor, properties.multiProcessorCount,
          properties.sharedMemPerBlockOptin};
}

/// Makes `device` this thread's, before anything is made on it.
int made_current(int device) {
  REAP_CUDA(cudaSetDevice(device));
  return device;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

CudaBackend::CudaBackend(Compute compute, int device)
    : compute_{compute},
      device_{describe(made_current(device), properties_of(device))},
      device_name_{properties_of(device).name},
      scratch_{device_memory(device)},
      slabs_{device_memory(device)},
      products_{device_memory(device)} {
  // Beside those of other backends: it neither waits for them nor they for it.
  REAP_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  memory_cache(device).add_stream(stream_);
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  memory_cache(device_.index).remove_stream(stream_);
  cudaStreamDestroy(stream_);
}

// The algorithms of the products are cuBLASLt's choice, by its version, the chip and the number of its multiprocessors.
std::string CudaBackend::numerics_id() const {
  int runtime = 0;
  REAP_CUDA(cudaRuntimeGetVersion(&runtime));
  return "cuda-" + version_text(runtime) + " cublaslt-" + std::to_string(cublasLtGetVersion()) + " " + device_name_ +
         " sm_" + std::to_string(device_.capability) + " " + std::to_string(device_.multiprocessors) +
         " multiprocessors " + (compute_ == Compute::bf16 ? "BF16" : "F32") + "-products";
}

CudaBackend::Operation CudaBackend::begin(const char* name) {
  made_current(device_.index);
  scratch_.reset();
  return {Range(name), {stream_, compute_, device_, &scratch_, &staging_}};
}

HostTransfer& CudaBackend::large() {
  if (!large_) large_.emplace(device_.index);
  return *large_;
}

void CudaBackend::upload(void* to, const void* from_host, std::size_t bytes) {
  made_current(device_.index);
  if (bytes < kLargeBytes) return staging_.upload(stream_, to, from_host, bytes);
  const auto* const host = static_cast<const std::byte*>(from_host);
  large().upload(stream_, to, static_cast<std::int64_t>(bytes), [host](std::uint64_t begin, std::span<std::byte> into) {
    std::memcpy(into.data(), host + begin, into.size());
  });
}

void CudaBackend::download(void* to_host, const void* from, std::size_t bytes) {
  made_current(device_.index);
  if (bytes < kLargeBytes) return staging_.download(stream_, to_host, from, bytes);
  large().download(stream_, to_host, from, static_cast<std::int64_t>(bytes));
}

void CudaBackend::copy(void* to, const void* from, std::size_t bytes) {
  made_current(device_.index);
  if (bytes > 0) REAP_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
}

void CudaBackend::gather_rows(void* to, const void* from, const std::int32_t* row, std::int64_t rows,
                              std::int64_t row_bytes) {
  if (rows == 0) return;
  const Operation operation = begin("gather_rows");
  const Launch& launch = operation.launch;
  auto* const indices = launch.scratch->take<std::int32_t>(rows);
  staging_.upload(stream_, indices, row, static_cast<std::size_t>(rows) * sizeof(std::int32_t));
  cuda::gather_rows(launch, from, indices, rows, row_bytes, to);
}

void CudaBackend::zero(void* to, std::size_t bytes) {
  made_current(device_.index);
  if (bytes > 0) REAP_CUDA(cudaMemsetAsync(to, 0, bytes, stream_));
}

void CudaBackend::synchronize() {
  made_current(device_.index);
  staging_.finish(stream_);
}

std::unique_ptr<DeviceComm> CudaBackend::make_comm(const std::string& id, int rank, int ranks) {
  memory_cache(device_.index).trim();  // NCCL allocates for itself
  return make_nccl_comm(device_.index, stream_, id, rank, ranks);
}

std::unique_ptr<Weight> CudaBackend::read_weight(const WeightSource& source, const ReadBytes& read, Compute precision) {
  if (!CudaWeight::held_as_stored(source.dtype, precision)) return Backend::read_weight(source, read, precision);
  const Operation operation = begin("read_weight");
  auto weight = std::make_unique<CudaWeight>(operation.launch, slabs_, source, precision);
  large().upload(stream_, weight->mutable_data(), weight->data_bytes(), read);
  return weight;
}

std::unique_ptr<Weight> CudaBackend::pack(const WeightSource& source, Compute precision) {
  return std::make_unique<CudaWeight>(begin("pack"), slabs_, source, precision);
}

void CudaBackend::embed(const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens,
                        std::int64_t rows, float* x) {
  cuda::embed(begin("embed"), table, dtype, hidden, tokens, rows, x);
}

void CudaBackend::rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width,
                           float* y, void* y_act) {
  cuda::rms_norm(begin("rms_norm"), x, weight, eps, rows, width, y, y_act);
}

void CudaBackend::matmul(const void* x, std::int64_t rows, const Weight& w, float* out, bool add) {
  const CudaWeight& weight = on_device(w);
  REAP_CUDA_REQUIRE(weight.precision() == compute_, "activations times a weight of another precision");
  products_.multiply(begin("matmul"), x, rows, weight, out, add);
}

void CudaBackend::qk_norm_rope(const float* q, const float* k, const float* v, const float* q_weight,
                               const float* k_weight, const std::int32_t* position, const AttentionShape& shape,
                               std::int64_t rows, void* q_act, void* k_act, void* v_act) {
  cuda::qk_norm_rope(begin("qk_norm_rope"), q, k, v, q_weight, k_weight, position, shape, rows, q_act, k_act, v_act);
}

void CudaBackend::attention(const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
                            const AttentionShape& shape, void* out) {
  cuda::attention(begin("attention"), q, k, v, start, shape, out);
}

void CudaBackend::route(const float* h, const Weight& gate, const float* bias, std::int64_t rows, std::int64_t top_k,
                        float* logits, std::int32_t* expert, float* gate_value) {
  const CudaWeight& weight = on_device(gate);
  REAP_CUDA_REQUIRE(weight.precision() == Compute::fp32, "a router of another precision than fp32");
  const Operation operation = begin("route");
  const Launch& launch = operation.launch;
  products_.multiply(launch, h, rows, weight, logits, false);
  select_experts(launch, logits, bias, rows, weight.rows(), top_k, expert, gate_value);
}

void CudaBackend::group_slots(const std::int32_t* expert, std::int64_t slots, std::int32_t first, std::int64_t count,
                              std::int32_t* order, std::int32_t* position, std::int64_t* start) {
  cuda::group_slots(begin("group_slots"), expert, slots, first, count, order, position, start);
}

void CudaBackend::slot_rows(const std::int32_t* slot, std::int64_t slots, std::int64_t top_k, std::int32_t* row) {
  cuda::slot_rows(begin("slot_rows"), slot, slots, top_k, row);
}

void CudaBackend::experts(const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                          std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs,
                          const SquareSums& inner) {
  REAP_CUDA_REQUIRE(start.size() == weights.size() + 1, "experts and group starts that do not match");
  if (weights.empty() || start.back() == 0) return;
  cuda::experts(begin("experts"), x, row, start, weights, f, norm, max_abs, inner);
}

void CudaBackend::combine(const void* f, const std::int32_t* position, const float* gate_value, std::int64_t rows,
                          std::int64_t top_k, std::int64_t hidden, float* x) {
  cuda::combine(begin("combine"), f, position, gate_value, rows, top_k, hidden, x);
}

void CudaBackend::accumulate(const std::int32_t* expert, const float* gate_value, const float* norm,
                             const float* max_abs, const std::int32_t* position, const std::int32_t* group,
                             std::int64_t rows, std::int64_t top_k, std::int64_t experts, std::int64_t* sums,
                             float* max_abs_table, std::int64_t* bad_slot) {
  cuda::accumulate(begin("accumulate"), expert, gate_value, norm, max_abs, position, group, rows, top_k, experts, sums,
                   max_abs_table, bad_slot);
}

void CudaBackend::accumulate_pairs(const std::int32_t* expert, const float* gate_value, const void* f,
                                   const std::int32_t* position, std::int64_t rows, std::int64_t top_k,
                                   std::int64_t hidden, std::int64_t experts, std::int64_t* sums,
                                   std::int64_t* bad_slot) {
  cuda::accumulate_pairs(begin("accumulate_pairs"), expert, gate_value, f, position, rows, top_k, hidden, experts, sums,
                         bad_slot);
}

void CudaBackend::record_bad_slot(const std::int64_t* bad_slot, std::int64_t call, const std::int32_t* expert,
                                  const float* gate_value, const float* norm, const std::int32_t* position,
                                  BadSlot* record) {
  cuda::record_bad_slot(begin("record_bad_slot"), bad_slot, call, expert, gate_value, norm, position, record);
}

void CudaBackend::accumulate_outputs(const std::int32_t* expert, const void* f, const std::int32_t* position,
                                     std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t* sums) {
  cuda::accumulate_outputs(begin("accumulate_outputs"), expert, f, position, rows, top_k, hidden, sums);
}

void CudaBackend::accumulate_squares(const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                                     std::int64_t width, const SquareSums& to) {
  cuda::accumulate_squares(begin("accumulate_squares"), x, width, row, start, width, to);
}

void CudaBackend::accumulate_moments(const void*, std::int64_t, std::int64_t, const MomentSums&) { fail_moments(); }

void CudaBackend::predict(const float* logits, const std::int32_t* target, std::int64_t rows, std::int64_t vocab,
                          Prediction* prediction) {
  cuda::predict(begin("predict"), logits, target, rows, vocab, prediction);
}

void CudaBackend::diverge(const float* p_logits, const Prediction* p, const float* q_logits, const Prediction* q,
                          std::int64_t rows, std::int64_t vocab, Divergence* divergence) {
  cuda::diverge(begin("diverge"), p_logits, p, q_logits, q, rows, vocab, divergence);
}

void CudaBackend::quantize(const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
                           std::uint32_t* words, std::uint16_t* scales) {
  cuda::quantize(begin("quantize"), source, spec, importance, words, scales);
}

void CudaBackend::round_with_feedback(const WeightSource&, const QuantizeSpec&, const Feedback&, const std::uint16_t*,
                                      std::uint32_t*) {
  fail_feedback();
}

}  // namespace reap::cuda
