#pragma once

#include <cublasLt.h>

#include <map>
#include <optional>
#include <tuple>

#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/weight.hpp"

namespace reap::cuda {

/// Dense products of one backend by cuBLASLt, on its stream.
///
/// For each shape of weight one algorithm is chosen, for a fixed number of rows, and used for any number: cuBLASLt
/// would pick another by the rows, and a row's bits would then depend on them. Algorithms that split a dot product
/// between blocks are passed over. What is left computes a row with the same instructions in the same order wherever it
/// lies in its tile. Shapes that cuBLASLt does not take (rows of no multiple of 16 bytes) go to a kernel of our own.
class Products {
 public:
  explicit Products(const Memory& memory);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  /// out = x w^T, or out += x w^T. x is f32 or bf16 by the weight's precision.
  void multiply(const Launch& launch, const void* x, std::int64_t rows, const CudaWeight& w, float* out, bool add);

 private:
  using Shape = std::tuple<Compute, std::int64_t, std::int64_t>;  // precision, rows and cols of the weight
  struct Plan;

  const std::optional<cublasLtMatmulAlgo_t>& algorithm(const Shape& shape);
  std::optional<cublasLtMatmulAlgo_t> choose(const Shape& shape) const;
  bool serves(const Shape& shape, const cublasLtMatmulAlgo_t& algorithm) const;

  cublasLtHandle_t handle_ = nullptr;
  Buffer<std::byte> workspace_;
  std::map<Shape, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

/// out = x w^T for any shape: x [rows, cols] and w [width, cols] of f32 or bf16, by `precision`.
void plain_product(const Launch& launch, Compute precision, const void* x, std::int64_t rows, const void* w,
                   std::int64_t width, std::int64_t cols, float* out, bool add);

}  // namespace reap::cuda
