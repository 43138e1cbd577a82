#include "kernels/quantize.hpp"

#include <algorithm>
#include <array>

namespace reap {
namespace {

constexpr float kUnknown = 1e-30f;
constexpr std::int64_t kMostUnknown = 16;

/// The sum of a group in the order of the package (docs/numerics.md): 32 partial sums, those of 8 lanes, then the
/// lanes.
float ordered_sum(const float* x, std::int64_t count) {
  constexpr std::size_t kPartial = 32;
  constexpr std::size_t kLanes = 8;
  std::array<float, kPartial> partial{};
  for (std::int64_t i = 0; i < count; ++i) partial[static_cast<std::size_t>(i) % kPartial] += x[i];
  float sum = 0;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    sum += ((partial[lane] + partial[kLanes + lane]) + partial[2 * kLanes + lane]) + partial[3 * kLanes + lane];
  }
  return sum;
}

}  // namespace

Importance effective_importance(const float* sums, std::int64_t cols, std::int64_t group) {
  Importance importance{{sums, sums + cols}, std::vector<std::uint8_t>(static_cast<std::size_t>(cols / group))};
  if (*std::min_element(sums, sums + cols) != 0) return importance;  // the package looks no further
  for (std::int64_t g = 0; g < cols / group; ++g) {
    float* const factor = importance.factor.data() + g * group;
    const auto unknown = std::count_if(factor, factor + group, [](float sum) { return sum <= kUnknown; });
    if (unknown > kMostUnknown) {
      importance.from_weights[static_cast<std::size_t>(g)] = 1;
    } else if (unknown > 0) {
      const float mean = ordered_sum(factor, group) / static_cast<float>(group - unknown);
      std::replace(factor, factor + group, 0.0f, mean);
    }
  }
  return importance;
}

}  // namespace reap
