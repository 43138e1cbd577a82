#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 256;                 // of a block; a row of a norm is summed by one block
constexpr std::int64_t kMaxBlocks = 1 << 20;  // threads or blocks walk on from there

int grid_for(std::int64_t blocks) { return static_cast<int>(std::min(blocks, kMaxBlocks)); }

template <class T>
__global__ void embed_rows(const T* table, std::int64_t hidden, const std::int32_t* tokens, std::int64_t rows,
                           float* x) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* const from = table + tokens[row] * hidden;
    for (std::int64_t i = threadIdx.x; i < hidden; i += kThreads) x[row * hidden + i] = as_float(from[i]);
  }
}

/// The same sums whatever the width of loads: thread t takes elements 4t..4t+3 of every 4 * kThreads.
__device__ float thread_square_sum(const float* x, std::int64_t width) {
  constexpr int kPiece = 4;
  float sum = 0;
  if (width % kPiece == 0 && reinterpret_cast<std::uintptr_t>(x) % sizeof(float4) == 0) {
    const auto* const pieces = reinterpret_cast<const float4*>(x);
    for (std::int64_t i = threadIdx.x; i < width / kPiece; i += kThreads) {
      const float4 piece = pieces[i];
      sum = fmaf(piece.x, piece.x, sum);
      sum = fmaf(piece.y, piece.y, sum);
      sum = fmaf(piece.z, piece.z, sum);
      sum = fmaf(piece.w, piece.w, sum);
    }
    return sum;
  }
  for (std::int64_t first = threadIdx.x * kPiece; first < width; first += kThreads * kPiece) {
    const std::int64_t end = min(first + kPiece, width);
    for (std::int64_t i = first; i < end; ++i) sum = fmaf(x[i], x[i], sum);
  }
  return sum;
}

template <class Act>
__global__ void rms_norm_rows(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width,
                              float* y, Act* y_act) {
  __shared__ float sums[kThreads / kWarp];
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* const from = x + row * width;
    const float mean = block_sum(thread_square_sum(from, width), sums) / static_cast<float>(width);
    const float scale = 1.0f / sqrtf(mean + eps);
    for (std::int64_t i = threadIdx.x; i < width; i += kThreads) {
      const float value = from[i] * scale * weight[i];
      if (y != nullptr) y[row * width + i] = value;
      if (y_act != nullptr) store(value, y_act + row * width + i);
    }
  }
}

/// kPiece consecutive elements of a row per thread.
template <class Act, int kPiece>
__global__ void combine_rows(const Act* f, const std::int32_t* position, const float* gate_value, std::int64_t rows,
                             std::int64_t top_k, std::int64_t hidden, float* x) {
  struct alignas(sizeof(Act) * kPiece) Pieces {
    Act each[kPiece];
  };
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    for (std::int64_t first = threadIdx.x * kPiece; first < hidden; first += kThreads * kPiece) {
      float sum[kPiece] = {};
      for (std::int64_t j = 0; j < top_k; ++j) {
        const float gate = gate_value[row * top_k + j];
        const std::int64_t place = position[row * top_k + j];
        const Pieces pieces = *reinterpret_cast<const Pieces*>(f + place * hidden + first);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) sum[i] = fmaf(gate, as_float(pieces.each[i]), sum[i]);
      }
#pragma unroll
      for (int i = 0; i < kPiece; ++i) x[row * hidden + first + i] += sum[i];
    }
  }
}

template <class Piece>
__global__ void gather_pieces(const Piece* from, const std::int32_t* row, std::int64_t rows, std::int64_t pieces,
                              Piece* to) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * pieces; i += step) {
    to[i] = from[row[i / pieces] * pieces + i % pieces];
  }
}

template <class T>
void run_embed(const Launch& launch, const void* table, std::int64_t hidden, const std::int32_t* tokens,
               std::int64_t rows, float* x) {
  embed_rows<<<grid_for(rows), kThreads, 0, launch.stream>>>(static_cast<const T*>(table), hidden, tokens, rows, x);
  REAP_CUDA_LAUNCHED();
}

template <class Act>
void run_combine(const Launch& launch, const void* f, const std::int32_t* position, const float* gate_value,
                 std::int64_t rows, std::int64_t top_k, std::int64_t hidden, float* x) {
  constexpr int kPiece = 4;
  const auto* const from = static_cast<const Act*>(f);
  const bool aligned = reinterpret_cast<std::uintptr_t>(f) % (kPiece * sizeof(Act)) == 0 && hidden % kPiece == 0;
  if (aligned) {
    combine_rows<Act, kPiece>
        <<<grid_for(rows), kThreads, 0, launch.stream>>>(from, position, gate_value, rows, top_k, hidden, x);
  } else {
    combine_rows<Act, 1>
        <<<grid_for(rows), kThreads, 0, launch.stream>>>(from, position, gate_value, rows, top_k, hidden, x);
  }
  REAP_CUDA_LAUNCHED();
}

template <class Piece>
void run_gather(const Launch& launch, const void* from, const std::int32_t* row, std::int64_t rows,
                std::int64_t row_bytes, void* to) {
  const std::int64_t pieces = row_bytes / static_cast<std::int64_t>(sizeof(Piece));
  gather_pieces<<<grid_for(ceil_div(rows * pieces, kThreads)), kThreads, 0, launch.stream>>>(
      static_cast<const Piece*>(from), row, rows, pieces, static_cast<Piece*>(to));
  REAP_CUDA_LAUNCHED();
}

}  // namespace

void embed(const Launch& launch, const void* table, DType dtype, std::int64_t hidden, const std::int32_t* tokens,
           std::int64_t rows, float* x) {
  if (rows == 0) return;
  switch (dtype) {
    case DType::f32:
      return run_embed<float>(launch, table, hidden, tokens, rows, x);
    case DType::bf16:
      return run_embed<__nv_bfloat16>(launch, table, hidden, tokens, rows, x);
    case DType::f16:
      return run_embed<__half>(launch, table, hidden, tokens, rows, x);
    default:
      fail_at(ExitCode::bug, "an embedding table of " + std::string(name_of(dtype)), __FILE__, __LINE__);
  }
}

void rms_norm(const Launch& launch, const float* x, const float* weight, float eps, std::int64_t rows,
              std::int64_t width, float* y, void* y_act) {
  if (rows == 0) return;
  if (launch.compute == Compute::bf16) {
    rms_norm_rows<<<grid_for(rows), kThreads, 0, launch.stream>>>(x, weight, eps, rows, width, y,
                                                                  static_cast<__nv_bfloat16*>(y_act));
  } else {
    rms_norm_rows<<<grid_for(rows), kThreads, 0, launch.stream>>>(x, weight, eps, rows, width, y,
                                                                  static_cast<float*>(y_act));
  }
  REAP_CUDA_LAUNCHED();
}

void combine(const Launch& launch, const void* f, const std::int32_t* position, const float* gate_value,
             std::int64_t rows, std::int64_t top_k, std::int64_t hidden, float* x) {
  if (rows == 0) return;
  if (launch.compute == Compute::bf16) {
    run_combine<__nv_bfloat16>(launch, f, position, gate_value, rows, top_k, hidden, x);
  } else {
    run_combine<float>(launch, f, position, gate_value, rows, top_k, hidden, x);
  }
}

void gather_rows(const Launch& launch, const void* from, const std::int32_t* row, std::int64_t rows,
                 std::int64_t row_bytes, void* to) {
  if (rows == 0 || row_bytes == 0) return;
  const auto divides = [&](std::uintptr_t bytes) {
    return (reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to) |
            static_cast<std::uintptr_t>(row_bytes)) %
               bytes ==
           0;
  };
  if (divides(sizeof(uint4))) return run_gather<uint4>(launch, from, row, rows, row_bytes, to);
  if (divides(sizeof(std::uint32_t))) return run_gather<std::uint32_t>(launch, from, row, rows, row_bytes, to);
  run_gather<std::uint8_t>(launch, from, row, rows, row_bytes, to);
}

}  // namespace reap::cuda
