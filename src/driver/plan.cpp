#include "driver/plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "driver/criteria.hpp"
#include "driver/exemptions.hpp"
#include "driver/gram_choice.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

/// Who of a layer stays whatever its score, by expert.
struct Exempt {
  std::vector<bool> super;
  std::vector<bool> carrying;  // much of a domain: --protect
};

/// How a criterion ranks the experts of a layer.
struct Ranking {
  std::vector<double> score;
  std::vector<std::int32_t> order;  // in which they go
};

LayerPlan plan_layer(const Ranking& ranking, std::span<const std::int64_t> count, const Exempt& exempt,
                     std::int64_t kept, std::int64_t layer) {
  const auto& [score, order] = ranking;
  LayerPlan plan;
  plan.score = score;
  plan.count.assign(count.begin(), count.end());
  const std::size_t to_drop = score.size() - static_cast<std::size_t>(kept);
  std::vector<bool> dropped(score.size(), false);
  std::size_t done = 0;
  double last_dropped = 0;
  std::size_t place = 0;
  for (; done < to_drop && place < order.size(); ++place) {
    const auto e = static_cast<std::size_t>(order[place]);
    if (exempt.super[e]) plan.preserved.push_back(order[place]);
    if (exempt.carrying[e]) plan.protected_experts.push_back(order[place]);
    if (exempt.super[e] || exempt.carrying[e]) continue;
    dropped[e] = true;
    last_dropped = score[e];
    ++done;
  }
  if (done < to_drop) {
    fail(ExitCode::usage, "layer {}: {} experts are super experts or protected, more than the {} that stay; drop fewer",
         layer, score.size() - done, kept);
  }
  std::ranges::sort(plan.preserved);
  std::ranges::sort(plan.protected_experts);
  for (std::size_t e = 0; e < score.size(); ++e) {
    if (!dropped[e]) plan.keep.push_back(static_cast<std::int32_t>(e));
  }
  if (to_drop > 0 && place < order.size()) plan.margin = score[static_cast<std::size_t>(order[place])] - last_dropped;
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

std::span<const std::int64_t> counts_of(const WeightedTotals& totals, std::size_t layer) {
  const auto experts = static_cast<std::size_t>(totals.experts);
  return std::span(totals.count).subspan(layer * experts, experts);
}

std::vector<Ranking> rank_by_score(const WeightedTotals& totals, const Criterion& criterion, std::uint64_t seed) {
  const std::vector<double> all = scores(totals, criterion, seed);
  const auto experts = static_cast<std::size_t>(totals.experts);
  std::vector<Ranking> rankings;
  for (std::size_t layer = 0; std::cmp_less(layer, totals.layers); ++layer) {
    const auto score = std::span(all).subspan(layer * experts, experts);
    rankings.push_back({{score.begin(), score.end()}, drop_order(score, counts_of(totals, layer))});
  }
  return rankings;
}

std::vector<RemovalOrder> removal_orders(const SaliencyFile& file, const WeightedTotals& totals,
                                         const std::vector<Exempt>& exempt) {
  std::vector<RemovalOrder> orders;
  for (std::size_t layer = 0; layer < exempt.size(); ++layer) {
    std::vector<bool> stays = exempt[layer].super;
    for (std::size_t e = 0; e < stays.size(); ++e) stays[e] = stays[e] || exempt[layer].carrying[e];
    orders.push_back(removal_order(file.saliency, static_cast<std::int64_t>(layer), counts_of(totals, layer), stays));
  }
  return orders;
}

/// The order of removal, behind those that are passed over: they have no place in it, and the error of going alone.
std::vector<Ranking> rank_by_removal(const SaliencyFile& file, const std::vector<RemovalOrder>& orders) {
  std::vector<Ranking> rankings;
  for (std::size_t layer = 0; layer < orders.size(); ++layer) {
    Ranking ranking{lone_errors(file.saliency, static_cast<std::int64_t>(layer)), {}};
    for (std::size_t e = 0; e < ranking.score.size(); ++e) {
      const auto id = static_cast<std::int32_t>(e);
      if (std::ranges::find(orders[layer].expert, id) == orders[layer].expert.end()) ranking.order.push_back(id);
    }
    for (std::size_t place = 0; place < orders[layer].expert.size(); ++place) {
      const std::int32_t id = orders[layer].expert[place];
      ranking.score[static_cast<std::size_t>(id)] = orders[layer].error[place];
      ranking.order.push_back(id);
    }
    rankings.push_back(std::move(ranking));
  }
  return rankings;
}

/// [layers] how many stay when all layers share one budget; of none fewer than top_k.
std::vector<std::int64_t> kept_globally(const Plan& plan, const std::vector<RemovalOrder>& orders) {
  std::vector<std::int64_t> most;
  for (const RemovalOrder& order : orders)
    most.push_back(std::min(std::ssize(order.expert), plan.experts - plan.top_k));
  const auto layers = static_cast<std::int64_t>(orders.size());
  std::vector<std::int64_t> kept = share_budget(orders, most, layers * (plan.experts - plan.kept));
  for (std::int64_t& count : kept) count = plan.experts - count;
  return kept;
}

WeightedTotals totals_of(const SaliencyFile& file, const PlanRequest& request) {
  if (request.domain_weights.empty()) return whole_totals(file.saliency);
  std::vector<double> groups;
  for (const double weight : weights_of(request, file.info.domains)) groups.insert(groups.end(), 2, weight);
  return weighted_totals(file.saliency, groups);
}

}  // namespace

std::int64_t kept_experts(const PlanRequest& request, std::int64_t experts, std::int64_t top_k) {
  check_together(request);
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
  if (!file.info.plan_digest.empty()) {
    fail(ExitCode::bad_input, "the saliency file is of what plan {} left, and cannot decide for the whole model",
         file.info.plan_digest);
  }
  if (!criterion.by_expert() && file.saliency.gram.empty()) {
    fail(ExitCode::usage, "criterion {}: the saliency file has no such sums; observe again with --collect gram",
         criterion.name);
  }
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
  const std::vector<Exempt> exempt = exemptions(file, totals, plan.request);
  std::vector<std::int64_t> kept(exempt.size(), plan.kept);
  std::vector<Ranking> rankings;
  if (criterion.by_expert()) {
    rankings = rank_by_score(totals, criterion, request.seed);
  } else {
    const std::vector<RemovalOrder> orders = removal_orders(file, totals, exempt);
    rankings = rank_by_removal(file, orders);
    if (request.allocation == Allocation::global) kept = kept_globally(plan, orders);
  }
  for (std::size_t layer = 0; layer < exempt.size(); ++layer) {
    plan.layers.push_back(plan_layer(rankings[layer], counts_of(totals, layer), exempt[layer], kept[layer],
                                     static_cast<std::int64_t>(layer)));
  }
  return plan;
}

}  // namespace reap
