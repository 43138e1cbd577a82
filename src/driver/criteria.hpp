#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver/weighted_totals.hpp"

namespace reap {

/// What a formula depends on besides the sums.
struct Parameters {
  double alpha = 0;        // of a family: the number behind the colon
  std::uint64_t seed = 0;  // of "random"
};

/// A formula that ranks the experts of a layer: the lowest scores are dropped.
struct Formula {
  std::string_view name;     // "reap"; that of a family ends with a colon, "reap:", and a number from 0 to 1 follows
  std::string_view formula;  // for people
  bool averages;             // over slots, so that more of them make the score surer; not a draw or an extreme
  /// The score of one expert; called only for experts with at least one token. Null for a criterion that ranks the
  /// experts of a layer together, by sums of its own.
  /// @param at  index of [layer, expert] in the totals
  double (*score)(const WeightedTotals& totals, std::size_t at, const Parameters& parameters);
};

/// THE ONE PLACE for a new criterion.
const std::vector<Formula>& formulas();

/// As options and help write them: "reap", "reap:ALPHA", ...
std::vector<std::string> criterion_names();

/// A criterion as it was asked for.
struct Criterion {
  const Formula* formula = nullptr;
  double alpha = 0;
  std::string name;  // canonical: "reap:0.5", also where "reap:.50" was asked for
  bool by_expert() const { return formula->score != nullptr; }
};

/// @throws Error(usage) for an unknown name, or a number that is missing or outside [0, 1]
Criterion parse_criterion(std::string_view text);

/// "random": uniform in [0, 1), a function of seed, layer and expert alone, the same on every machine.
double random_score(std::uint64_t seed, std::int64_t layer, std::int64_t expert);

/// Scores of all experts of all layers, [layers, experts]. Experts with no token score 0.
/// @throws Error(usage) for a criterion that is not by expert
std::vector<double> scores(const WeightedTotals& totals, const Criterion& criterion, std::uint64_t seed);

/// Experts of one layer in the order in which they are dropped: no token first, then the lowest score; of equals the
/// higher id.
/// @param score  [experts]
/// @param count  [experts] tokens
std::vector<std::int32_t> drop_order(std::span<const double> score, std::span<const std::int64_t> count);

}  // namespace reap
