#include "kernels/gptq.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/moments.hpp"

namespace reap {
namespace {

/// Turns the lower triangle of a symmetric table H into the factors: H = F D F^T, from the last row and column to the
/// first. A row without moments of its own, which damping leaves only where there are none at all, has no factors.
void factor(double* table, std::int64_t size) {
  for (std::int64_t k = size - 1; k > 0; --k) {
    double* const last = table + triangle(k);
    const double d = last[k];
    if (!(d > 0)) {
      std::fill_n(last, k, 0.0);
      continue;
    }
    for (std::int64_t i = 0; i < k; ++i) {
      double* const row = table + triangle(i);
      const double factor = last[i] / d;
      for (std::int64_t j = 0; j <= i; ++j) row[j] -= factor * last[j];
    }
    for (std::int64_t i = 0; i < k; ++i) last[i] /= d;
  }
}

}  // namespace

Feedback feedback_of(std::span<const std::int64_t> moments, std::int64_t width) {
  REAP_CHECK(static_cast<std::int64_t>(moments.size()) == moment_count(width), "{} moments of {} inputs",
             moments.size(), width);
  constexpr double kUnit = 1.0 / static_cast<double>(std::int64_t{1} << kMomentFractionBits);
  Feedback feedback{width, {}};
  feedback.factors.reserve(moments.size());
  std::vector<double> table;
  for (std::int64_t first = 0; first < width; first += kMomentBlock) {
    const std::int64_t size = std::min(kMomentBlock, width - first);
    const auto part = moments.subspan(feedback.factors.size(), static_cast<std::size_t>(triangle(size)));
    table.resize(part.size());
    std::ranges::transform(part, table.begin(), [](std::int64_t sum) { return static_cast<double>(sum) * kUnit; });
    double trace = 0;
    for (std::int64_t k = 0; k < size; ++k) trace += table[static_cast<std::size_t>(triangle(k) + k)];
    const double damping = kFeedbackDamping * trace / static_cast<double>(size);
    for (std::int64_t k = 0; k < size; ++k) table[static_cast<std::size_t>(triangle(k) + k)] += damping;
    factor(table.data(), size);
    for (const double value : table) feedback.factors.push_back(static_cast<float>(value));
  }
  return feedback;
}

}  // namespace reap
