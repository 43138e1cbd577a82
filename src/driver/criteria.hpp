#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shard/saliency.hpp"

namespace reap {

/// A formula that ranks the experts of a layer: the lowest scores are dropped.
struct Criterion {
  std::string_view name;
  std::string_view formula;  // for people
  /// The score of one expert; called only for experts with at least one token.
  /// @param at  index of [layer, expert] in the totals
  double (*score)(const FieldTotals& totals, std::size_t at);
};

/// All criteria but `random`, which needs a seed.
const std::vector<Criterion>& criteria();

/// "random": uniform in [0, 1), a function of seed, layer and expert alone, the same on every machine.
double random_score(std::uint64_t seed, std::int64_t layer, std::int64_t expert);

/// Scores of all experts of all layers, [layers, experts], by the criterion of that name.
/// Experts with no token score 0; make_plan ranks them last whatever the score.
/// @throws Error(usage) for an unknown name
std::vector<double> scores(const FieldTotals& totals, std::string_view criterion, std::uint64_t seed);

}  // namespace reap
