#include "driver/exemptions.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "driver/weighted_totals.hpp"
#include "kernels/check.hpp"

namespace reap {

std::vector<ExpertAt> super_experts(const FieldTotals& totals) {
  std::vector<double> sorted = totals.max_abs;
  if (sorted.empty()) return {};
  std::sort(sorted.begin(), sorted.end());
  const double place = 0.995 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double quantile = sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
  const double threshold = std::max(quantile, sorted.back() / 10);

  std::vector<ExpertAt> result;
  const std::int64_t layers = totals.layers * 3 / 4;
  for (std::int64_t at = 0; at < layers * totals.experts; ++at) {
    if (totals.max_abs[static_cast<std::size_t>(at)] > threshold)
      result.emplace_back(at / totals.experts, at % totals.experts);
  }
  return result;
}

std::vector<ExpertAt> protected_experts(const SaliencyFile& file, const std::vector<DomainNumber>& protect) {
  const std::vector<std::string>& domains = file.info.domains;
  std::set<ExpertAt> result;
  for (const auto& [name, share] : protect) {
    const auto domain = std::ranges::find(domains, name) - domains.begin();
    REAP_CHECK(domain < std::ssize(domains), "domain {} is not in the file", name);
    const WeightedTotals totals = domain_totals(file.saliency, domain);
    const std::vector<double>& sum = totals.sum[static_cast<std::size_t>(Field::gate_norm)];
    for (std::int64_t layer = 0; layer < totals.layers; ++layer) {
      const auto first = sum.begin() + layer * totals.experts;
      const double all = std::accumulate(first, first + totals.experts, 0.0);
      for (std::int64_t expert = 0; expert < totals.experts; ++expert) {
        if (first[expert] > share * all) result.emplace(layer, expert);
      }
    }
  }
  return {result.begin(), result.end()};
}

}  // namespace reap
