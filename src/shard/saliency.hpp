#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/fields.hpp"

namespace reap {

/// Brings the digits of `sums`, [experts, kSumsPerExpert] of one group and layer, to canonical form.
/// @throws Error(numerics) naming field, layer and expert on overflow
void normalise_sums(std::span<std::int64_t> sums, std::int64_t layer);

/// The field sums of a model: [group, layer, expert]. group = domain * 2 + half.
struct Saliency {
  std::int64_t groups = 0;
  std::int64_t layers = 0;
  std::int64_t experts = 0;
  std::vector<std::int64_t> sums;  // [groups, layers, experts, kSumsPerExpert]
  std::vector<float> max_abs;      // [groups, layers, experts] max |f|, 0 where no token came

  Saliency() = default;
  Saliency(std::int64_t group_count, std::int64_t layer_count, std::int64_t expert_count);

  std::int64_t index(std::int64_t group, std::int64_t layer, std::int64_t expert) const {
    return (group * layers + layer) * experts + expert;
  }
  std::int64_t& count(std::int64_t group, std::int64_t layer, std::int64_t expert);
  std::int64_t count(std::int64_t group, std::int64_t layer, std::int64_t expert) const;
  std::span<std::int64_t, kDigits> digits(Field field, std::int64_t group, std::int64_t layer, std::int64_t expert);
  std::span<const std::int64_t, kDigits> digits(Field field, std::int64_t group, std::int64_t layer,
                                                std::int64_t expert) const;

  /// Brings all digits to canonical form. @throws Error(numerics) naming field, layer and expert on overflow
  void normalise();
  /// Conservation: in every layer the counts over groups and experts add up to top_k * tokens.
  /// @throws Error(bug) naming the first layer where they do not
  void check_conservation(std::int64_t tokens, std::int64_t top_k) const;
};

/// The sums over groups, per [layer, expert], as doubles rounded once from the exact sums.
struct FieldTotals {
  std::int64_t layers = 0, experts = 0;
  std::vector<std::int64_t> count;                      // [layers, experts]
  std::array<std::vector<double>, kFields.size()> sum;  // by Field, [layers, experts]
  std::vector<double> max_abs;                          // [layers, experts]
};
FieldTotals totals(const Saliency& saliency);

}  // namespace reap
