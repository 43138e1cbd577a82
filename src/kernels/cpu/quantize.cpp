#include <omp.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/cpu/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cpu {

void widen_row(const VectorOps& vector, const WeightSource& source, std::int64_t row, bf16* to) {
  const auto* const codes = reinterpret_cast<const std::uint8_t*>(source.data) + row * source.cols;
  const float* const scales = source.scale_inv + row / kScaleBlock * ceil_div(source.cols, kScaleBlock);
  for (std::int64_t col = 0; col < source.cols; col += kScaleBlock) {
    vector.f8_to_bf16(codes + col, std::min(kScaleBlock, source.cols - col), scales[col / kScaleBlock], to + col);
  }
}

void quantize(const Run& run, const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
              std::uint32_t* words, std::uint16_t* scales) {
  REAP_CHECK(spec.group == 32 || spec.group == 64 || spec.group == 128, "groups of {}", spec.group);
  REAP_CHECK(source.cols > 0 && source.cols % spec.group == 0, "{} inputs in groups of {}", source.cols, spec.group);
  const bool is_f8 = source.dtype == DType::f8_e4m3;
  const std::int64_t groups = source.cols / spec.group;
  const auto row_bytes = source.cols * static_cast<std::int64_t>(size_of(source.dtype));
  std::vector<bf16> wide(is_f8 ? static_cast<std::size_t>(run.threads * source.cols) : 0);
  std::atomic<std::int64_t> bad_row = std::numeric_limits<std::int64_t>::max();
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < source.rows; ++row) {
    QuantizeRow task{};
    task.weights = source.data + row * row_bytes;
    task.dtype = source.dtype;
    if (is_f8) {
      bf16* const own = wide.data() + omp_get_thread_num() * source.cols;
      widen_row(run.vector, source, row, own);
      task.weights = own;
      task.dtype = DType::bf16;
    }
    task.groups = groups;
    task.group = spec.group;
    task.search = spec.rounding != Rounding::rtn;
    if (importance != nullptr) {
      task.importance = importance->factor.data();
      task.from_weights = importance->from_weights.data();
    }
    task.words = words + row * (source.cols / kNibbles);
    task.scales = scales + row * groups;
    if (run.vector.quantize(task)) continue;
    std::int64_t lowest = bad_row;
    while (row < lowest && !bad_row.compare_exchange_weak(lowest, row)) {
    }
  }
  if (bad_row < source.rows) {
    fail(ExitCode::numerics, "row {} holds a value that is not finite, or too large for a scale in fp16",
         bad_row.load());
  }
}

}  // namespace reap::cpu
