#pragma once

#include <optional>

#include "kernels/cuda/host_transfer.hpp"
#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/products.hpp"
#include "kernels/cuda/range.hpp"
#include "kernels/device_comm.hpp"

namespace reap::cuda {

/// The CUDA backend: every operation forwards to a launcher of ops.hpp on a stream of its own. Serves one thread at a
/// time, on any thread; others on the same device share nothing with it.
class CudaBackend final : public Backend {
 public:
  /// @throws Error(io) when the device cannot be used
  CudaBackend(Compute compute, int device);
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  Compute compute() const override { return compute_; }
  std::string numerics_id() const override;
  const Memory& memory() const override { return device_memory(device_.index); }
  void upload(void* to, const void* from_host, std::size_t bytes) override;
  void download(void* to_host, const void* from, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void gather_rows(void* to, const void* from, const std::int32_t* row, std::int64_t rows,
                   std::int64_t row_bytes) override;
  void zero(void* to, std::size_t bytes) override;
  void synchronize() override;

  std::unique_ptr<Weight> pack(const WeightSource& source, Compute precision) override;
  std::unique_ptr<Weight> read_weight(const WeightSource& source, const ReadBytes& read, Compute precision) override;
  void embed(const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens, std::int64_t rows,
             float* x) override;
  void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width, float* y,
                void* y_act) override;
  void matmul(const void* x, std::int64_t rows, const Weight& w, float* out, bool add) override;
  void qk_norm_rope(const float* q, const float* k, const float* v, const float* q_weight, const float* k_weight,
                    const std::int32_t* position, const AttentionShape& shape, std::int64_t rows, void* q_act,
                    void* k_act, void* v_act) override;
  void attention(const void* q, const void* k, const void* v, std::span<const std::int64_t> start,
                 const AttentionShape& shape, void* out) override;
  void route(const float* h, const Weight& gate, const float* bias, std::int64_t rows, std::int64_t top_k,
             float* logits, std::int32_t* expert, float* gate_value) override;
  void group_slots(const std::int32_t* expert, std::int64_t slots, std::int32_t first, std::int64_t count,
                   std::int32_t* order, std::int32_t* position, std::int64_t* start) override;
  void slot_rows(const std::int32_t* slot, std::int64_t slots, std::int64_t top_k, std::int32_t* row) override;
  void experts(const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
               std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs,
               const SquareSums& inner) override;
  void combine(const void* f, const std::int32_t* position, const float* gate_value, std::int64_t rows,
               std::int64_t top_k, std::int64_t hidden, float* x) override;
  void accumulate(const std::int32_t* expert, const float* gate_value, const float* norm, const float* max_abs,
                  const std::int32_t* position, const std::int32_t* group, std::int64_t rows, std::int64_t top_k,
                  std::int64_t experts, std::int64_t* sums, float* max_abs_table, std::int64_t* bad_slot) override;
  void accumulate_pairs(const std::int32_t* expert, const float* gate_value, const void* f,
                        const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                        std::int64_t experts, std::int64_t* sums, std::int64_t* bad_slot) override;
  void record_bad_slot(const std::int64_t* bad_slot, std::int64_t call, const std::int32_t* expert,
                       const float* gate_value, const float* norm, const std::int32_t* position,
                       BadSlot* record) override;
  void accumulate_outputs(const std::int32_t* expert, const void* f, const std::int32_t* position, std::int64_t rows,
                          std::int64_t top_k, std::int64_t hidden, std::int64_t* sums) override;
  void accumulate_squares(const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                          std::int64_t width, const SquareSums& to) override;
  void accumulate_moments(const void* x, std::int64_t rows, std::int64_t width, const MomentSums& to) override;
  void predict(const float* logits, const std::int32_t* target, std::int64_t rows, std::int64_t vocab,
               Prediction* prediction) override;
  void diverge(const float* p_logits, const Prediction* p, const float* q_logits, const Prediction* q,
               std::int64_t rows, std::int64_t vocab, Divergence* divergence) override;
  void quantize(const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
                std::uint32_t* words, std::uint16_t* scales) override;
  void round_with_feedback(const WeightSource& source, const QuantizeSpec& spec, const Feedback& feedback,
                           const std::uint16_t* scales, std::uint32_t* words) override;

  /// A communicator whose transfers take their place behind what this backend was told. See nccl.hpp.
  std::unique_ptr<DeviceComm> make_comm(const std::string& id, int rank, int ranks);

 private:
  /// What one operation runs with, and its name for a profiler while it is queued.
  struct Operation {
    Range range;
    Launch launch;
    operator const Launch&() const { return launch; }
  };
  /// Begins an operation: the device is the thread's, and the scratch memory is free.
  Operation begin(const char* name);
  /// What moves more than a few megabytes.
  HostTransfer& large();

  Compute compute_;
  DeviceInfo device_;
  std::string device_name_;
  cudaStream_t stream_ = nullptr;
  Scratch scratch_;
  Slabs slabs_;
  Staging staging_;
  Products products_;
  std::optional<HostTransfer> large_;  // made when it is first needed: its memory is pinned
};

}  // namespace reap::cuda
