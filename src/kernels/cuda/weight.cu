#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/weight.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 16;  // threads walk on from there

int blocks_for(std::int64_t elements) { return static_cast<int>(std::min(ceil_div(elements, kThreads), kMaxBlocks)); }

template <class From, class To>
__global__ void convert(const From* from, std::int64_t count, To* to) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    store(as_float(from[i]), to + i);
  }
}

/// One block of threads per row at a time.
template <class To>
__global__ void dequantise(const std::uint8_t* codes, const float* scale_inv, std::int64_t rows, std::int64_t cols,
                           To* to) {
  const std::int64_t scale_cols = (cols + kScaleBlock - 1) / kScaleBlock;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* const scales = scale_inv + row / kScaleBlock * scale_cols;
    for (std::int64_t col = threadIdx.x; col < cols; col += kThreads) {
      store(f8_to_float(codes[row * cols + col]) * scales[col / kScaleBlock], to + row * cols + col);
    }
  }
}

/// The same, 16 codes at a time: cols is a multiple of 16, so that a piece lies in one square and is aligned.
template <class To>
__global__ void dequantise_by_16(const std::uint8_t* codes, const float* scale_inv, std::int64_t rows,
                                 std::int64_t cols, To* to) {
  constexpr int kPiece = 16;
  union Codes {
    uint4 all;
    std::uint8_t each[kPiece];
  };
  struct alignas(16) Values {
    To each[kPiece];
  };
  const std::int64_t scale_cols = (cols + kScaleBlock - 1) / kScaleBlock;
  const std::int64_t pieces = cols / kPiece;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * pieces; i += step) {
    const std::int64_t row = i / pieces;
    const std::int64_t col = i % pieces * kPiece;
    const float scale = scale_inv[row / kScaleBlock * scale_cols + col / kScaleBlock];
    Codes piece;
    piece.all = reinterpret_cast<const uint4*>(codes)[i];
    Values values;
#pragma unroll
    for (int j = 0; j < kPiece; ++j) store(f8_to_float(piece.each[j]) * scale, values.each + j);
    reinterpret_cast<Values*>(to)[i] = values;
  }
}

template <class From, class To>
void run_convert(const Launch& launch, const void* from, std::int64_t count, void* to) {
  convert<<<blocks_for(count), kThreads, 0, launch.stream>>>(static_cast<const From*>(from), count,
                                                             static_cast<To*>(to));
  REAP_CUDA_LAUNCHED();
}

template <class To>
void run_dequantise(const Launch& launch, const CudaWeight& weight, To* to) {
  const auto* const codes = static_cast<const std::uint8_t*>(weight.data());
  const std::int64_t rows = weight.rows(), cols = weight.cols();
  if (cols % 16 == 0) {
    dequantise_by_16<<<blocks_for(rows * cols / 16), kThreads, 0, launch.stream>>>(codes, weight.scale_inv(), rows,
                                                                                   cols, to);
  } else {
    const int blocks = static_cast<int>(std::min(rows, kMaxBlocks));
    dequantise<<<blocks, kThreads, 0, launch.stream>>>(codes, weight.scale_inv(), rows, cols, to);
  }
  REAP_CUDA_LAUNCHED();
}

DType held_as(DType stored, Compute precision) {
  switch (stored) {
    case DType::f8_e4m3:
      return DType::f8_e4m3;
    case DType::bf16:
      return DType::bf16;
    case DType::f16:
    case DType::f32:
      return precision == Compute::bf16 ? DType::bf16 : DType::f32;
    default:
      fail_at(ExitCode::bug, "a weight of type " + std::string(name_of(stored)), __FILE__, __LINE__);
  }
}

}  // namespace

bool CudaWeight::held_as_stored(DType dtype, Compute precision) { return held_as(dtype, precision) == dtype; }

CudaWeight::CudaWeight(const Launch& launch, Slabs& slabs, const WeightSource& source, Compute precision)
    : rows_{source.rows}, cols_{source.cols}, dtype_{held_as(source.dtype, precision)}, precision_{precision} {
  REAP_CUDA_REQUIRE(rows_ > 0 && cols_ > 0, "an empty weight");
  const std::int64_t elements = rows_ * cols_;
  bytes_ = elements * static_cast<std::int64_t>(size_of(dtype_));
  data_ = slabs.take(bytes_);
  if (dtype_ == DType::f8_e4m3) {
    REAP_CUDA_REQUIRE(source.scale_inv != nullptr, "an f8_e4m3 weight without its scales");
    const std::int64_t scale_bytes =
        ceil_div(rows_, kScaleBlock) * scale_cols() * static_cast<std::int64_t>(sizeof(float));
    scale_ = slabs.take(scale_bytes);
    bytes_ += scale_bytes;
    launch.staging->upload(launch.stream, scale_.get(), source.scale_inv, static_cast<std::size_t>(scale_bytes));
  }
  if (source.data == nullptr) return;
  const std::size_t source_bytes = static_cast<std::size_t>(elements) * size_of(source.dtype);
  if (source.dtype == dtype_) {
    launch.staging->upload(launch.stream, data_.get(), source.data, source_bytes);
    return;
  }
  void* const raw = launch.scratch->take<std::byte>(static_cast<std::int64_t>(source_bytes));
  launch.staging->upload(launch.stream, raw, source.data, source_bytes);
  if (source.dtype == DType::f32) {
    run_convert<float, __nv_bfloat16>(launch, raw, elements, data_.get());
  } else if (dtype_ == DType::bf16) {
    run_convert<__half, __nv_bfloat16>(launch, raw, elements, data_.get());
  } else {
    run_convert<__half, float>(launch, raw, elements, data_.get());
  }
}

const void* expanded(const Launch& launch, const CudaWeight& weight) {
  const bool to_bf16 = weight.precision() == Compute::bf16;
  const std::int64_t elements = weight.rows() * weight.cols();
  if (weight.dtype() == DType::f8_e4m3 && to_bf16) {
    auto* const to = launch.scratch->take<__nv_bfloat16>(elements);
    run_dequantise(launch, weight, to);
    return to;
  }
  if (weight.dtype() == DType::f8_e4m3) {
    auto* const to = launch.scratch->take<float>(elements);
    run_dequantise(launch, weight, to);
    return to;
  }
  if (weight.dtype() == DType::bf16 && !to_bf16) {
    auto* const to = launch.scratch->take<float>(elements);
    run_convert<__nv_bfloat16, float>(launch, weight.data(), elements, to);
    return to;
  }
  return weight.data();
}

}  // namespace reap::cuda
