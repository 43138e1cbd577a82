#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/buffer.hpp"
#include "kernels/check.hpp"
#include "kernels/cpu/ops.hpp"
#include "kernels/moments.hpp"

namespace reap::cpu {
namespace {

/// One row of a weight in fp32; fp8 by way of bf16, as quantize() takes it. Weights have any alignment.
/// @param half  [cols] scratch
void load_row(const Run& run, const WeightSource& source, std::int64_t row, bf16* half, float* to) {
  const auto bytes = static_cast<std::size_t>(source.cols) * size_of(source.dtype);
  const std::byte* const from = source.data + static_cast<std::size_t>(row) * bytes;
  if (source.dtype == DType::f32) {
    std::memcpy(to, from, bytes);
    return;
  }
  if (source.dtype == DType::f8_e4m3) {
    widen_row(run.vector, source, row, half);
  } else {
    std::memcpy(half, from, bytes);
  }
  if (source.dtype == DType::f16) {
    run.vector.f16_to_f32(&half->bits, source.cols, to);
  } else {
    run.vector.bf16_to_f32(half, source.cols, to);
  }
}

/// What one thread works on: as many rows of the weight as there are lanes, a lane each.
class RowTile {
 public:
  RowTile(const Run& run, const WeightSource& source, std::int64_t group)
      : run_{run},
        source_{source},
        group_{group},
        lanes_{run.vector.feedback_rows()},
        row_{host_memory, source.cols},
        half_{host_memory, source.cols},
        weights_{host_memory, source.cols * lanes_},
        errors_{host_memory, std::min(source.cols, kMomentBlock) * lanes_},
        scales_{host_memory, source.cols / group * lanes_},
        words_{host_memory, source.cols / kNibbles * lanes_} {}

  /// Rounds rows from `first` on.
  void round(std::int64_t first, const Feedback& feedback, const std::uint16_t* scales, std::uint32_t* words) {
    const std::int64_t rows = std::min(lanes_, source_.rows - first);
    fill(first, rows, scales);
    const float* factors = feedback.factors.data();
    for (std::int64_t input = 0; input < source_.cols; input += kMomentBlock) {
      const std::int64_t inputs = std::min(kMomentBlock, source_.cols - input);
      run_.vector.round_with_feedback({.weights = weights_.data() + input * lanes_,
                                       .scales = scales_.data() + input / group_ * lanes_,
                                       .factors = factors,
                                       .inputs = inputs,
                                       .group = group_,
                                       .errors = errors_.data(),
                                       .words = words_.data() + input / kNibbles * lanes_});
      factors += triangle(inputs);
    }
    const std::int64_t count = source_.cols / kNibbles;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < count; ++i) words[(first + row) * count + i] = words_.data()[i * lanes_ + row];
    }
  }

 private:
  /// Weights and scales, turned; lanes without a row hold zeros.
  void fill(std::int64_t first, std::int64_t rows, const std::uint16_t* scales) {
    const std::int64_t groups = source_.cols / group_;
    std::fill_n(weights_.data(), weights_.size(), 0.0F);
    std::fill_n(scales_.data(), scales_.size(), 1.0F);
    for (std::int64_t row = 0; row < rows; ++row) {
      load_row(run_, source_, first + row, half_.data(), row_.data());
      for (std::int64_t i = 0; i < source_.cols; ++i) weights_.data()[i * lanes_ + row] = row_.data()[i];
      for (std::int64_t g = 0; g < groups; ++g) {
        scales_.data()[g * lanes_ + row] = f16_to_float(scales[(first + row) * groups + g]);
      }
    }
  }

  const Run& run_;
  const WeightSource& source_;
  std::int64_t group_, lanes_;
  Buffer<float> row_;
  Buffer<bf16> half_;
  Buffer<float> weights_, errors_, scales_;
  Buffer<std::uint32_t> words_;
};

}  // namespace

void round_with_feedback(const Run& run, const WeightSource& source, const QuantizeSpec& spec, const Feedback& feedback,
                         const std::uint16_t* scales, std::uint32_t* words) {
  REAP_CHECK(source.cols % spec.group == 0 && kMomentBlock % spec.group == 0, "{} inputs in groups of {}", source.cols,
             spec.group);
  REAP_CHECK(feedback.width == source.cols, "feedback of {} inputs for {}", feedback.width, source.cols);
  const std::int64_t lanes = run.vector.feedback_rows();
#pragma omp parallel num_threads(run.threads)
  {
    RowTile tile(run, source, spec.group);
#pragma omp for schedule(dynamic)
    for (std::int64_t first = 0; first < source.rows; first += lanes) tile.round(first, feedback, scales, words);
  }
}

}  // namespace reap::cpu
