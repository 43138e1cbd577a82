#pragma once

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.hpp"

namespace reap::test {

/// The types that a checkpoint may hold a weight matrix in.
constexpr std::array<DType, 4> kWeightDTypes{DType::f32, DType::f16, DType::bf16, DType::f8_e4m3};

/// A weight matrix in a checkpoint's type, at an odd address as in a file, and the values that its elements stand for.
class StoredWeight {
 public:
  StoredWeight(DType dtype, std::int64_t rows, std::int64_t cols)
      : dtype_{dtype}, rows_{rows}, cols_{cols}, bytes_(1 + static_cast<std::size_t>(rows * cols) * size_of(dtype)) {
    if (dtype == DType::f8_e4m3) {
      squares_across_ = (cols + kScaleBlock - 1) / kScaleBlock;
      scales_.assign(static_cast<std::size_t>((rows + kScaleBlock - 1) / kScaleBlock * squares_across_), 1.0f);
    }
  }

  /// Finite elements of about unit variance divided by cols; scales that differ from square to square.
  static StoredWeight random(DType dtype, std::int64_t rows, std::int64_t cols, unsigned seed) {
    StoredWeight weight(dtype, rows, cols);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(cols)));
    std::uniform_real_distribution<float> scale(0.5e-3f, 1e-3f);
    for (float& s : weight.scales_) s = scale(generator);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const float value = normal(generator);
      const auto bits = static_cast<std::uint32_t>(generator());
      std::uint32_t element = bits % 0x70 | (bits & 0x80);  // f8: any finite code but the largest
      if (dtype == DType::f32) std::memcpy(&element, &value, sizeof value);
      if (dtype == DType::bf16) element = to_bf16(value).bits;
      if (dtype == DType::f16) element = (bits & 0x8000) | (bits & 0x3ff) | (8 + bits / 0x10000 % 5) << 10;
      weight.set_bits(i / cols, i % cols, element);
    }
    return weight;
  }

  void set_bits(std::int64_t row, std::int64_t col, std::uint32_t bits) {
    std::memcpy(element(row, col), &bits, size_of(dtype_));
  }
  float& scale(std::int64_t row, std::int64_t col) {
    return scales_[static_cast<std::size_t>(row / kScaleBlock * squares_across_ + col / kScaleBlock)];
  }

  /// What the backend has to multiply with: dequantised in fp32 and, for bf16, rounded.
  float value(std::int64_t row, std::int64_t col, Compute precision) const {
    std::uint32_t bits = 0;
    std::memcpy(&bits, const_cast<StoredWeight*>(this)->element(row, col), size_of(dtype_));
    float value = 0;
    if (dtype_ == DType::f32) std::memcpy(&value, &bits, sizeof value);
    if (dtype_ == DType::bf16) value = to_float(bf16{static_cast<std::uint16_t>(bits)});
    if (dtype_ == DType::f16) value = f16_to_float(static_cast<std::uint16_t>(bits));
    if (dtype_ == DType::f8_e4m3) {
      value = f8_e4m3_to_float(static_cast<std::uint8_t>(bits)) * const_cast<StoredWeight*>(this)->scale(row, col);
    }
    return precision == Compute::bf16 ? to_float(to_bf16(value)) : value;
  }

  /// [rows * cols] value() of every element.
  std::vector<double> values(Compute precision) const {
    std::vector<double> all;
    for (std::int64_t i = 0; i < rows_ * cols_; ++i) all.push_back(value(i / cols_, i % cols_, precision));
    return all;
  }

  WeightSource source() const {
    return {bytes_.data() + 1, dtype_, rows_, cols_, scales_.empty() ? nullptr : scales_.data()};
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }

 private:
  std::byte* element(std::int64_t row, std::int64_t col) {
    return bytes_.data() + 1 + static_cast<std::size_t>(row * cols_ + col) * size_of(dtype_);
  }

  DType dtype_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::int64_t squares_across_ = 0;
  std::vector<std::byte> bytes_;
  std::vector<float> scales_;
};

inline std::vector<float> random_values(std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

}  // namespace reap::test
