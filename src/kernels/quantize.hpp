#pragma once

#include <cstdint>
#include <vector>

namespace reap {

/// How the scales of 4-bit weights are chosen (docs/numerics.md).
enum class Rounding : std::uint8_t {
  rtn,      // by the extreme value of each group
  opt_rtn,  // the best of 181 scales, by the squared error, weighted by importance
  gptq,     // those scales; inputs make up for the errors of others (gptq.hpp), where it is known how they go together
};

/// 4 bits, symmetric, in groups of consecutive inputs.
struct QuantizeSpec {
  Rounding rounding;
  std::int64_t group;  // 32, 64 or 128; divides the inputs
  bool operator==(const QuantizeSpec&) const = default;
};

/// Weights to a 32-bit word.
constexpr std::int64_t kNibbles = 8;

/// Importance of the inputs of a weight, as the search multiplies errors with it.
struct Importance {
  std::vector<float> factor;               // [cols]
  std::vector<std::uint8_t> from_weights;  // [cols / group] not 0: too few inputs are known; weights stand in for them
};

/// Fills what calibration has left at zero, as AutoRound does: in a group of at most 16 unknown inputs they take the
/// mean of the known ones, in others all inputs count by the size of the weights.
/// @param sums  [cols] sum of squared activations per input
Importance effective_importance(const float* sums, std::int64_t cols, std::int64_t group);

}  // namespace reap
