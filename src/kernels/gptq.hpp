#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace reap {

/// What is added to the moments' diagonal before they are factored, as a share of its mean.
constexpr double kFeedbackDamping = 0.01;

/// How weights make up for the rounding of others: weight k of a row, before it is rounded, gets the sum of error i
/// times factor (k, i) over the inputs i before it in its block of kMomentBlock. What GPTQ does, without an inverse:
/// the factors are those of the moments H = F D F^T, F unit upper triangular (docs/numerics.md).
struct Feedback {
  std::int64_t width;          // inputs
  std::vector<float> factors;  // [moment_count(width)] lower triangles, row by row; (k, i) is F_ik
};

/// @param moments  [moment_count(width)] of the input (moments.hpp)
Feedback feedback_of(std::span<const std::int64_t> moments, std::int64_t width);

}  // namespace reap
