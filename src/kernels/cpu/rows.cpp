#include <omp.h>

#include <cstring>

#include "kernels/check.hpp"
#include "kernels/cpu/ops.hpp"

namespace reap::cpu {

void to_act(const Run& run, const float* from, std::int64_t count, void* act, std::int64_t offset) {
  if (run.compute == Compute::bf16) {
    run.vector.f32_to_bf16(from, count, static_cast<bf16*>(act) + offset);
  } else {
    std::memcpy(static_cast<float*>(act) + offset, from, static_cast<std::size_t>(count) * sizeof(float));
  }
}

namespace {

using Widen = void (*)(const VectorOps& vector, const std::byte* from, std::int64_t count, float* to);

Widen widen_from(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return [](const VectorOps&, const std::byte* from, std::int64_t count, float* to) {
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
      };
    case DType::bf16:
      return [](const VectorOps& vector, const std::byte* from, std::int64_t count, float* to) {
        vector.bf16_to_f32(reinterpret_cast<const bf16*>(from), count, to);
      };
    case DType::f16:
      return [](const VectorOps& vector, const std::byte* from, std::int64_t count, float* to) {
        vector.f16_to_f32(reinterpret_cast<const std::uint16_t*>(from), count, to);
      };
    default:
      REAP_CHECK(false, "an embedding table of {}", name_of(dtype));
      return nullptr;
  }
}

}  // namespace

void embed(const Run& run, const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens,
           std::int64_t rows, float* x) {
  const Widen widen = widen_from(dtype);
  const auto row_bytes = hidden * static_cast<std::int64_t>(size_of(dtype));
  const auto* bytes = static_cast<const std::byte*>(table);
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    widen(run.vector, bytes + tokens[row] * row_bytes, hidden, x + row * hidden);
  }
}

void rms_norm(const Run& run, const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width,
              float* y, void* y_act) {
  const bool is_bf16 = run.compute == Compute::bf16;
  float* wide = y != nullptr ? y : is_bf16 ? nullptr : static_cast<float*>(y_act);  // where the rows are wanted in fp32
  const Buffer<float> scratch(host_memory, wide == nullptr ? run.threads * width : 0);
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t offset = row * width;
    float* out = wide != nullptr ? wide + offset : scratch.data() + omp_get_thread_num() * width;
    run.vector.rms_norm(x + offset, weight, eps, width, out);
    if (y_act != nullptr && y_act != wide) to_act(run, out, width, y_act, offset);
  }
}

void gather_rows(const Run& run, const void* from, const std::int32_t* row, std::int64_t rows, std::int64_t row_bytes,
                 void* to) {
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t i = 0; i < rows; ++i) {
    std::memcpy(static_cast<std::byte*>(to) + i * row_bytes, static_cast<const std::byte*>(from) + row[i] * row_bytes,
                static_cast<std::size_t>(row_bytes));
  }
}

void combine(const Run& run, const void* f, const std::int32_t* position, const float* gate_value, std::int64_t rows,
             std::int64_t top_k, std::int64_t hidden, float* x) {
  const bool is_bf16 = run.compute == Compute::bf16;
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    run.vector.combine(f, is_bf16, position + row * top_k, gate_value + row * top_k, top_k, hidden, x + row * hidden);
  }
}

}  // namespace reap::cpu
