#include "driver/plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "driver/criteria.hpp"
#include "driver/exemptions.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

/// Who of a layer stays whatever its score, by expert.
struct Exempt {
  std::vector<bool> super;
  std::vector<bool> carrying;  // much of a domain: --protect
};

LayerPlan plan_layer(std::span<const double> score, std::span<const std::int64_t> count, const Exempt& exempt,
                     std::int64_t kept, std::int64_t layer) {
  LayerPlan plan;
  plan.score.assign(score.begin(), score.end());
  plan.count.assign(count.begin(), count.end());
  const std::vector<std::int32_t> order = drop_order(score, count);
  const std::size_t to_drop = score.size() - static_cast<std::size_t>(kept);
  std::vector<bool> dropped(score.size(), false);
  std::size_t done = 0;
  double highest_dropped = 0;
  std::vector<bool> passed_over(score.size(), false);  // kept although a better one goes
  for (std::size_t place = 0; done < to_drop && place < order.size(); ++place) {
    const auto e = static_cast<std::size_t>(order[place]);
    if (exempt.super[e]) plan.preserved.push_back(order[place]);
    if (exempt.carrying[e]) plan.protected_experts.push_back(order[place]);
    passed_over[e] = exempt.super[e] || exempt.carrying[e];
    if (passed_over[e]) continue;
    dropped[e] = true;
    highest_dropped = score[e];
    ++done;
  }
  if (done < to_drop) {
    fail(ExitCode::usage, "layer {}: {} experts are super experts or protected, more than the {} that stay; drop fewer",
         layer, score.size() - done, kept);
  }
  std::ranges::sort(plan.preserved);
  std::ranges::sort(plan.protected_experts);
  double lowest_kept = std::numeric_limits<double>::infinity();
  for (std::size_t e = 0; e < score.size(); ++e) {
    if (dropped[e]) continue;
    plan.keep.push_back(static_cast<std::int32_t>(e));
    if (!passed_over[e]) lowest_kept = std::min(lowest_kept, score[e]);
  }
  plan.margin = to_drop == 0 || std::isinf(lowest_kept) ? 0 : lowest_kept - highest_dropped;
  return plan;
}

/// [layers] who stays by the request's exemptions.
std::vector<Exempt> exemptions(const SaliencyFile& file, const WeightedTotals& totals, const PlanRequest& request) {
  const std::vector<bool> nobody(static_cast<std::size_t>(totals.experts), false);
  std::vector<Exempt> result(static_cast<std::size_t>(totals.layers), Exempt{nobody, nobody});
  if (request.preserve_super_experts) {
    for (const auto& [layer, expert] : super_experts(totals)) {
      result[static_cast<std::size_t>(layer)].super[static_cast<std::size_t>(expert)] = true;
    }
  }
  for (const auto& [layer, expert] : protected_experts(file, request.protect)) {
    result[static_cast<std::size_t>(layer)].carrying[static_cast<std::size_t>(expert)] = true;
  }
  return result;
}

std::vector<PlanDomain> domains_of(const SaliencyFile& file) {
  std::vector<PlanDomain> domains;
  const std::vector<std::int64_t> tokens = domain_tokens(file.saliency, file.info.top_k);
  for (std::size_t i = 0; i < file.info.domains.size(); ++i) domains.push_back({file.info.domains[i], tokens[i]});
  return domains;
}

WeightedTotals totals_of(const SaliencyFile& file, const PlanRequest& request) {
  if (request.domain_weights.empty()) return whole_totals(file.saliency);
  std::vector<double> groups;
  for (const double weight : weights_of(request, file.info.domains)) groups.insert(groups.end(), 2, weight);
  return weighted_totals(file.saliency, groups);
}

}  // namespace

std::int64_t kept_experts(const PlanRequest& request, std::int64_t experts, std::int64_t top_k) {
  if (!(request.ratio >= 0 && request.ratio < 1)) {
    fail(ExitCode::usage, "ratio {}: must be at least 0 and below 1", request.ratio);
  }
  if (request.keep < 0 || request.keep > experts) {
    fail(ExitCode::usage, "keep {}: the model has {} experts per layer", request.keep, experts);
  }
  // The product is rounded to double before the floor, as in the reference (int(E * ratio)): 10 * 0.3 drops 3.
  const auto dropped = static_cast<std::int64_t>(std::floor(static_cast<double>(experts) * request.ratio));
  std::int64_t kept = request.keep > 0 ? request.keep : experts - dropped;
  const std::int64_t multiple = std::clamp<std::int64_t>(request.keep_multiple, 1, experts);  // beyond, all stay
  kept = std::min(experts, (kept + multiple - 1) / multiple * multiple);
  if (kept < top_k) {
    fail(ExitCode::usage, "{} of {} experts per layer would stay, but the router chooses {} for every token; keep more",
         kept, experts, top_k);
  }
  return kept;
}

Plan make_plan(const SaliencyFile& file, const PlanRequest& request) {
  const Criterion criterion = parse_criterion(request.criterion);
  check_domains(request, file.info.domains);
  Plan plan;
  plan.request = request;
  plan.request.criterion = criterion.name;
  plan.request.domain_weights = without_ones(request.domain_weights);
  plan.model_digest = file.info.model_digest;
  plan.model_type = file.info.model_type;
  plan.calibration_digest = file.info.calibration_digest;
  plan.samples = file.info.samples;
  plan.tokens = file.info.tokens;
  plan.domains = domains_of(file);
  plan.compute = file.info.compute;
  plan.block_tokens = file.info.block_tokens;
  plan.numerics_id = file.info.numerics_id;
  plan.experts = file.saliency.experts;
  plan.top_k = file.info.top_k;
  plan.kept = kept_experts(request, plan.experts, plan.top_k);

  const WeightedTotals totals = totals_of(file, plan.request);
  const std::vector<double> score = scores(totals, criterion, request.seed);
  const std::vector<Exempt> exempt = exemptions(file, totals, plan.request);
  const auto experts = static_cast<std::size_t>(plan.experts);
  for (std::size_t layer = 0; layer < exempt.size(); ++layer) {
    plan.layers.push_back(plan_layer(std::span(score).subspan(layer * experts, experts),
                                     std::span(totals.count).subspan(layer * experts, experts), exempt[layer],
                                     plan.kept, static_cast<std::int64_t>(layer)));
  }
  return plan;
}

}  // namespace reap
