#include "driver/weighted_totals.hpp"

#include <algorithm>
#include <set>

#include "kernels/check.hpp"

namespace reap {
namespace {

/// The groups of that weight, as a saliency of their own.
Saliency groups_of(const Saliency& saliency, std::span<const double> weights, double weight) {
  Saliency chosen(std::ranges::count(weights, weight), saliency.layers, saliency.experts);
  const std::int64_t cells = saliency.layers * saliency.experts;
  auto sums = chosen.sums.begin();
  auto max_abs = chosen.max_abs.begin();
  for (std::size_t group = 0; group < weights.size(); ++group) {
    if (weights[group] != weight) continue;
    const std::int64_t first = static_cast<std::int64_t>(group) * cells;
    sums = std::copy_n(saliency.sums.begin() + first * kSumsPerExpert, cells * kSumsPerExpert, sums);
    max_abs = std::copy_n(saliency.max_abs.begin() + first, cells, max_abs);
  }
  return chosen;
}

/// totals += part * weight
void add(WeightedTotals& totals, const FieldTotals& part, double weight) {
  for (std::size_t at = 0; at < totals.count.size(); ++at) {
    totals.count[at] += part.count[at];
    totals.weighted_count[at] += weight * static_cast<double>(part.count[at]);
    totals.max_abs[at] = std::max(totals.max_abs[at], part.max_abs[at]);
    for (std::size_t field = 0; field < kFields.size(); ++field) {
      totals.sum[field][at] += weight * part.sum[field][at];
    }
  }
}

}  // namespace

WeightedTotals weighted_totals(const Saliency& saliency, std::span<const double> weights) {
  REAP_CHECK(std::ssize(weights) == saliency.groups, "{} weights for {} groups", weights.size(), saliency.groups);
  WeightedTotals totals;
  totals.layers = saliency.layers;
  totals.experts = saliency.experts;
  const auto cells = static_cast<std::size_t>(saliency.layers * saliency.experts);
  totals.count.assign(cells, 0);
  totals.weighted_count.assign(cells, 0);
  totals.max_abs.assign(cells, 0);
  for (std::vector<double>& sum : totals.sum) sum.assign(cells, 0);
  for (const double weight : std::set<double>(weights.begin(), weights.end())) {
    if (weight > 0) add(totals, reap::totals(groups_of(saliency, weights, weight)), weight);
  }
  return totals;
}

WeightedTotals whole_totals(const Saliency& saliency) {
  return weighted_totals(saliency, std::vector<double>(static_cast<std::size_t>(saliency.groups), 1));
}

WeightedTotals half_totals(const Saliency& saliency, int half) {
  std::vector<double> weights(static_cast<std::size_t>(saliency.groups), 0);
  for (auto group = static_cast<std::size_t>(half); group < weights.size(); group += 2) weights[group] = 1;
  return weighted_totals(saliency, weights);
}

WeightedTotals domain_totals(const Saliency& saliency, std::int64_t domain) {
  std::vector<double> weights(static_cast<std::size_t>(saliency.groups), 0);
  const auto first = static_cast<std::size_t>(domain * 2);
  weights[first] = weights[first + 1] = 1;
  return weighted_totals(saliency, weights);
}

std::vector<std::int64_t> domain_tokens(const Saliency& saliency, std::int64_t top_k) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(saliency.groups / 2), 0);
  for (std::int64_t group = 0; group < saliency.groups; ++group) {
    for (std::int64_t e = 0; e < saliency.experts; ++e) {
      tokens[static_cast<std::size_t>(group / 2)] += saliency.count(group, 0, e);
    }
  }
  for (std::int64_t& domain : tokens) domain /= top_k;
  return tokens;
}

}  // namespace reap
