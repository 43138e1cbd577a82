#include "driver/stability.hpp"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "driver/plan.hpp"
#include "driver/weighted_totals.hpp"

namespace reap {
namespace {

/// Totals of some of the samples and what a criterion makes of them.
struct Ranking {
  Ranking(WeightedTotals of, const Criterion& criterion, std::uint64_t seed)
      : totals(std::move(of)), score(scores(totals, criterion, seed)) {}

  std::span<const double> scores_of(std::size_t layer) const {
    return std::span(score).subspan(layer * width(), width());
  }
  std::span<const std::int64_t> counts_of(std::size_t layer) const {
    return std::span(totals.count).subspan(layer * width(), width());
  }
  std::size_t width() const { return static_cast<std::size_t>(totals.experts); }

  ExpertSets keep(std::int64_t kept) const {
    ExpertSets sets;
    for (std::size_t layer = 0; layer < static_cast<std::size_t>(totals.layers); ++layer) {
      const std::vector<std::int32_t> order = drop_order(scores_of(layer), counts_of(layer));
      sets.emplace_back(order.end() - kept, order.end());
      std::ranges::sort(sets.back());
    }
    return sets;
  }

  WeightedTotals totals;
  std::vector<double> score;
};

std::int64_t shared(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  std::vector<std::int32_t> both;
  std::ranges::set_intersection(a, b, std::back_inserter(both));
  return std::ssize(both);
}

/// Kept by both over kept by either, in all layers together.
double jaccard(const ExpertSets& a, const ExpertSets& b) {
  std::int64_t both = 0, either = 0;
  for (std::size_t layer = 0; layer < a.size(); ++layer) {
    const std::int64_t common = shared(a[layer], b[layer]);
    both += common;
    either += std::ssize(a[layer]) + std::ssize(b[layer]) - common;
  }
  return static_cast<double>(both) / static_cast<double>(either);
}

/// Those of `sets[own]` that are in no other.
ExpertSets only_in(const std::vector<ExpertSets>& sets, std::size_t own) {
  ExpertSets only = sets[own];
  for (std::size_t other = 0; other < sets.size(); ++other) {
    if (other == own) continue;
    for (std::size_t layer = 0; layer < only.size(); ++layer) {
      std::erase_if(only[layer], [&](std::int32_t e) { return std::ranges::binary_search(sets[other][layer], e); });
    }
  }
  return only;
}

DomainCuts domain_cuts(const SaliencyFile& file, const Criterion& criterion, std::uint64_t seed, std::int64_t kept) {
  DomainCuts cuts;
  std::vector<ExpertSets> sets;
  const std::vector<std::int64_t> tokens = domain_tokens(file.saliency, file.info.top_k);
  for (std::size_t domain = 0; domain < file.info.domains.size(); ++domain) {
    if (tokens[domain] == 0) continue;
    cuts.names.push_back(file.info.domains[domain]);
    const WeightedTotals totals = domain_totals(file.saliency, static_cast<std::int64_t>(domain));
    sets.push_back(Ranking(totals, criterion, seed).keep(kept));
  }
  for (std::size_t a = 0; a < sets.size(); ++a) {
    cuts.overlap.emplace_back();
    for (const ExpertSets& b : sets) cuts.overlap.back().push_back(jaccard(sets[a], b));
    cuts.only.push_back(only_in(sets, a));
  }
  return cuts;
}

}  // namespace

CutStability cut_stability(const SaliencyFile& file, const PlanRequest& request) {
  const Criterion criterion = parse_criterion(request.criterion);
  CutStability result;
  result.criterion = criterion.name;
  result.ratio = request.ratio;
  result.kept = kept_experts(request, file.saliency.experts, file.info.top_k);
  const Ranking whole(whole_totals(file.saliency), criterion, request.seed);
  const Ranking half[2] = {{half_totals(file.saliency, 0), criterion, request.seed},
                           {half_totals(file.saliency, 1), criterion, request.seed}};
  const ExpertSets kept[2] = {half[0].keep(result.kept), half[1].keep(result.kept)};
  for (std::size_t layer = 0; layer < kept[0].size(); ++layer) {
    result.halves.push_back(static_cast<double>(shared(kept[0][layer], kept[1][layer])) /
                            static_cast<double>(result.kept));
    if (!criterion.formula->averages) continue;
    result.noise.push_back(cut_noise({whole.scores_of(layer),
                                      whole.counts_of(layer),
                                      {half[0].scores_of(layer), half[1].scores_of(layer)},
                                      {half[0].counts_of(layer), half[1].counts_of(layer)}},
                                     result.kept));
  }
  result.domains = domain_cuts(file, criterion, request.seed, result.kept);
  return result;
}

ExpertSets starved_experts(const Saliency& saliency, std::int64_t least) {
  const WeightedTotals totals = whole_totals(saliency);
  ExpertSets starved(static_cast<std::size_t>(totals.layers));
  for (std::int64_t at = 0; at < totals.layers * totals.experts; ++at) {
    if (totals.count[static_cast<std::size_t>(at)] >= least) continue;
    starved[static_cast<std::size_t>(at / totals.experts)].push_back(static_cast<std::int32_t>(at % totals.experts));
  }
  return starved;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace reap
