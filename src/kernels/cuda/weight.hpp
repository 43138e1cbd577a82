#pragma once

#include <memory>

#include "kernels/backend.hpp"
#include "kernels/cuda/launch.hpp"

namespace reap::cuda {

/// A weight matrix on the device: row-major and dense, [rows, cols].
///   f8_e4m3 stays f8_e4m3 and bf16 stays bf16, whatever the precision of its products
///   f32 stays f32 for fp32 products and is rounded to bf16 for bf16 products
///   f16 becomes f32 for fp32 products and is rounded to bf16 for bf16 products
/// What a product multiplies with is the element in the product's type: code * scale_inv in fp32 for f8_e4m3, rounded
/// to nearest even where products are bf16.
class CudaWeight final : public Weight {
 public:
  /// Whether elements are kept as a checkpoint has them.
  static bool held_as_stored(DType dtype, Compute precision);

  /// Queues the transfer and the conversion; `source` has been read on return. Where its data are null they are still
  /// to come, as they will be held: to mutable_data().
  CudaWeight(const Launch& launch, Slabs& slabs, const WeightSource& source, Compute precision);

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::int64_t bytes() const override { return bytes_; }

  std::byte* mutable_data() { return data_.get(); }
  std::int64_t data_bytes() const { return rows_ * cols_ * static_cast<std::int64_t>(size_of(dtype_)); }
  DType dtype() const { return dtype_; }                                                   // f32, bf16 or f8_e4m3
  Compute precision() const { return precision_; }                                         // of the products it is for
  const void* data() const { return data_.get(); }                                         // 256-byte aligned
  const float* scale_inv() const { return reinterpret_cast<const float*>(scale_.get()); }  // null but for f8_e4m3
  std::int64_t scale_cols() const { return (cols_ + kScaleBlock - 1) / kScaleBlock; }      // of a row of scale_inv

 private:
  std::int64_t rows_;
  std::int64_t cols_;
  DType dtype_;
  Compute precision_;
  std::int64_t bytes_;
  std::shared_ptr<std::byte> data_;
  std::shared_ptr<std::byte> scale_;
};

inline const CudaWeight& on_device(const Weight& weight) { return static_cast<const CudaWeight&>(weight); }

/// The whole of `weight` as its product multiplies with it, in scratch memory: f32 or bf16 by its precision. Where it
/// lies, when it is held so.
const void* expanded(const Launch& launch, const CudaWeight& weight);

}  // namespace reap::cuda
