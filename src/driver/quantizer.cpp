#include "driver/quantizer.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "kernels/check.hpp"
#include "kernels/round_up.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::uint32_t kZeros = 0x77777777;  // eight zero points of 8, which GPTQ v1 stores less one
constexpr std::int64_t kTile = 16;            // rows and columns that are turned at a time: they stay in the cache

/// A weight of the checkpoint in host memory.
struct Loaded {
  std::vector<std::byte> data;
  std::vector<float> scale_inv;
  WeightSource source;
};

Loaded load(const Checkpoint& checkpoint, const Tensor& weight) {
  REAP_CHECK(weight.shape.size() == 2, "tensor {} has {} axes", weight.name, weight.shape.size());
  Loaded loaded{checkpoint.read(weight), {}, {}};
  if (weight.dtype == DType::f8_e4m3) {
    const Tensor& scales = checkpoint.at(weight.name + std::string("_scale_inv"));
    loaded.scale_inv.resize(scales.bytes / sizeof(float));
    checkpoint.read(scales, 0, std::as_writable_bytes(std::span(loaded.scale_inv)));
  }
  loaded.source = {loaded.data.data(), weight.dtype, weight.shape[0], weight.shape[1],
                   loaded.scale_inv.empty() ? nullptr : loaded.scale_inv.data()};
  return loaded;
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <class T>
std::vector<T> transposed(const std::vector<T>& from, std::int64_t rows) {
  std::vector<T> to(from.size());
  const std::int64_t cols = static_cast<std::int64_t>(from.size()) / rows;
  for (std::int64_t row = 0; row < rows; row += kTile) {
    for (std::int64_t col = 0; col < cols; col += kTile) {
      for (std::int64_t c = col; c < std::min(col + kTile, cols); ++c) {
        for (std::int64_t r = row; r < std::min(row + kTile, rows); ++r) {
          to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * cols + c)];
        }
      }
    }
  }
  return to;
}

/// Scales of bf16 weights, exactly: they have at most 8 bits, also where fp16 has no more.
std::vector<bf16> as_bf16(const std::vector<std::uint16_t>& scales) {
  std::vector<bf16> rounded;
  rounded.reserve(scales.size());
  for (const std::uint16_t scale : scales) {
    rounded.push_back(to_bf16(f16_to_float(scale)));
    REAP_CHECK(to_float(rounded.back()) == f16_to_float(scale), "a scale that bf16 does not hold");
  }
  return rounded;
}

std::vector<bf16> expanded(const WeightSource& source) {
  const std::int64_t across = ceil_div(source.cols, kScaleBlock);
  std::vector<bf16> values(static_cast<std::size_t>(source.rows * source.cols));
  for (std::int64_t i = 0; i < source.rows * source.cols; ++i) {
    const float scale = source.scale_inv[i / source.cols / kScaleBlock * across + i % source.cols / kScaleBlock];
    values[static_cast<std::size_t>(i)] = to_bf16(f8_e4m3_to_float(static_cast<std::uint8_t>(source.data[i])) * scale);
  }
  return values;
}

std::vector<std::int32_t> group_index(std::int64_t cols, std::int64_t group) {
  std::vector<std::int32_t> index(static_cast<std::size_t>(cols));
  for (std::int64_t col = 0; col < cols; ++col) {
    index[static_cast<std::size_t>(col)] = static_cast<std::int32_t>(col / group);
  }
  return index;
}

}  // namespace

std::optional<Importance> Quantizer::importance_of(const Tensor& weight, const QuantizeSpec& rounding) const {
  if (!importance_ || rounding.rounding == Rounding::rtn) return std::nullopt;
  const std::int64_t inputs = weight.shape[1];
  const std::optional<std::vector<float>> sums = importance_->of(weight.name, inputs);
  if (!sums) return std::nullopt;
  return effective_importance(sums->data(), inputs, rounding.group);
}

std::shared_ptr<const Feedback> Quantizer::feedback_of(const Tensor& weight, const QuantizeSpec& rounding) const {
  if (rounding.rounding != Rounding::gptq) return nullptr;
  REAP_CHECK(importance_ && importance_->has_moments(), "{}: no moments to round with", weight.name);
  return importance_->feedback(weight.name, weight.shape[1]);
}

Quantizer::Result Quantizer::compute(const Checkpoint& checkpoint, const Tensor& weight, const Derivation& how) {
  const Loaded loaded = load(checkpoint, weight);
  const WeightSource& source = loaded.source;
  Result result;
  const auto set = [&](W4Piece piece, std::vector<std::byte> bytes) {
    result.pieces_[static_cast<std::size_t>(piece)] = std::move(bytes);
  };
  if (how.piece == W4Piece::none) {
    set(W4Piece::none, bytes_of(expanded(source)));
    return result;
  }
  const std::int64_t groups = source.cols / how.rounding.group;
  std::vector<std::uint32_t> words(static_cast<std::size_t>(source.rows * (source.cols / kNibbles)));
  std::vector<std::uint16_t> scales(static_cast<std::size_t>(source.rows * groups));
  const std::optional<Importance> importance = importance_of(weight, how.rounding);
  const std::shared_ptr<const Feedback> feedback = feedback_of(weight, how.rounding);
  {
    const Scope scope("tensor " + shown(weight.name));
    const std::lock_guard lock(device_);
    backend_->quantize(source, how.rounding, importance ? &*importance : nullptr, words.data(), scales.data());
    if (feedback) backend_->round_with_feedback(source, how.rounding, *feedback, scales.data(), words.data());
  }
  if (how.format == W4Format::compressed_tensors) {
    set(W4Piece::words, bytes_of(words));
    set(W4Piece::scales, w4_scale_dtype(weight.dtype) == DType::bf16 ? bytes_of(as_bf16(scales)) : bytes_of(scales));
    set(W4Piece::shape, bytes_of(weight.shape));
    return result;
  }
  set(W4Piece::words, bytes_of(transposed(words, source.rows)));
  set(W4Piece::scales, bytes_of(transposed(scales, source.rows)));
  set(W4Piece::zeros,
      bytes_of(std::vector<std::uint32_t>(static_cast<std::size_t>(groups * source.rows / kNibbles), kZeros)));
  set(W4Piece::group_index, bytes_of(group_index(source.cols, how.rounding.group)));
  return result;
}

const std::vector<std::byte>& DerivedTensors::bytes(const Tensor& weight, const Derivation& how) {
  if (weight_ != &weight) {
    REAP_CHECK(quantizer_ != nullptr, "{} is computed, but there is nothing to compute it with", weight.name);
    result_ = quantizer_->compute(source_, weight, how);
    weight_ = &weight;
  }
  return result_.bytes(how.piece);
}

}  // namespace reap
