#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/products.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kTile = 16;                      // rows and columns of out per block, and depth of a step
constexpr std::int64_t kMaxGridRows = 0xffff;  // of blocks; they walk on from there

/// A thread per element of out, which it sums over the columns in ascending order.
template <class T>
__global__ void multiply_tiles(const T* x, std::int64_t rows, const T* w, std::int64_t width, std::int64_t cols,
                               float* out, bool add) {
  __shared__ float x_tile[kTile][kTile + 1];
  __shared__ float w_tile[kTile][kTile + 1];
  const int across = static_cast<int>(threadIdx.x), down = static_cast<int>(threadIdx.y);
  const std::int64_t w_first = std::int64_t{blockIdx.x} * kTile;
  for (std::int64_t x_first = std::int64_t{blockIdx.y} * kTile; x_first < rows;
       x_first += std::int64_t{gridDim.y} * kTile) {
    const std::int64_t row = x_first + down;
    float sum = 0;
    for (std::int64_t k = 0; k < cols; k += kTile) {
      const bool inside = k + across < cols;
      x_tile[down][across] = inside && row < rows ? as_float(x[row * cols + k + across]) : 0.0f;
      w_tile[down][across] =
          inside && w_first + down < width ? as_float(w[(w_first + down) * cols + k + across]) : 0.0f;
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kTile; ++i) sum = fmaf(x_tile[down][i], w_tile[across][i], sum);
      __syncthreads();
    }
    const std::int64_t col = w_first + across;
    if (row >= rows || col >= width) continue;
    float* const to = out + row * width + col;
    *to = add ? *to + sum : sum;
  }
}

template <class T>
void run(const Launch& launch, const void* x, std::int64_t rows, const void* w, std::int64_t width, std::int64_t cols,
         float* out, bool add) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(width, kTile)),
                    static_cast<unsigned>(std::min(ceil_div(rows, kTile), kMaxGridRows)));
  multiply_tiles<<<blocks, dim3(kTile, kTile), 0, launch.stream>>>(static_cast<const T*>(x), rows,
                                                                   static_cast<const T*>(w), width, cols, out, add);
  REAP_CUDA_LAUNCHED();
}

}  // namespace

void plain_product(const Launch& launch, Compute precision, const void* x, std::int64_t rows, const void* w,
                   std::int64_t width, std::int64_t cols, float* out, bool add) {
  if (precision == Compute::bf16) {
    run<__nv_bfloat16>(launch, x, rows, w, width, cols, out, add);
  } else {
    run<float>(launch, x, rows, w, width, cols, out, add);
  }
}

}  // namespace reap::cuda
