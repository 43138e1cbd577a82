#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shard/saliency.hpp"

namespace reap {

/// The field sums as a criterion sees them, [layers, experts]: those of each group times its weight. `count` and
/// `max_abs` are plain: over the groups of a weight above 0.
struct WeightedTotals : FieldTotals {
  std::vector<double> weighted_count;
};

/// Sums of groups of one weight are added as integers and rounded once, then multiplied; these products are added by
/// ascending weight. So weights of 1 change no bit, and the order of the groups never counts.
/// @param weights  [groups], at least 0
WeightedTotals weighted_totals(const Saliency& saliency, std::span<const double> weights);

/// All groups, with a weight of 1.
WeightedTotals whole_totals(const Saliency& saliency);
/// The samples of even (0) or odd (1) number, of all domains.
WeightedTotals half_totals(const Saliency& saliency, int half);
/// The samples of one domain.
WeightedTotals domain_totals(const Saliency& saliency, std::int64_t domain);

/// Tokens of each domain: every token has top_k slots in the first layer.
std::vector<std::int64_t> domain_tokens(const Saliency& saliency, std::int64_t top_k);

}  // namespace reap
