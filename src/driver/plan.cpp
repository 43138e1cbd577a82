#include "driver/plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "driver/criteria.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

/// Experts of one layer in the order in which they are dropped: no token first, then the lowest score; of equals the
/// higher id.
std::vector<std::int32_t> drop_order(std::span<const double> score, std::span<const std::int64_t> count) {
  std::vector<std::int32_t> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const auto i = static_cast<std::size_t>(a), j = static_cast<std::size_t>(b);
    const bool seen_a = count[i] > 0, seen_b = count[j] > 0;
    if (seen_a != seen_b) return seen_b;
    if (score[i] != score[j]) return score[i] < score[j];
    return a > b;
  });
  return order;
}

LayerPlan plan_layer(std::span<const double> score, std::span<const std::int64_t> count,
                     const std::vector<bool>& is_protected, std::int64_t kept, std::int64_t layer) {
  LayerPlan plan;
  plan.score.assign(score.begin(), score.end());
  plan.count.assign(count.begin(), count.end());
  const std::vector<std::int32_t> order = drop_order(score, count);
  const std::size_t to_drop = score.size() - static_cast<std::size_t>(kept);
  std::vector<bool> dropped(score.size(), false);
  std::size_t done = 0;
  double highest_dropped = 0;
  for (std::size_t place = 0; place < order.size() && done < to_drop; ++place) {
    const std::int32_t expert = order[place];
    const auto e = static_cast<std::size_t>(expert);
    if (is_protected[e]) {
      if (place < to_drop) plan.preserved.push_back(expert);  // beyond, the score alone would have kept it
      continue;
    }
    dropped[e] = true;
    highest_dropped = score[e];
    ++done;
  }
  if (done < to_drop) {
    fail(ExitCode::usage, "layer {}: {} experts are preserved as super experts, more than the {} that stay; drop fewer",
         layer, std::ranges::count(is_protected, true), kept);
  }
  std::sort(plan.preserved.begin(), plan.preserved.end());
  double lowest_kept = std::numeric_limits<double>::infinity();
  for (std::size_t e = 0; e < score.size(); ++e) {
    if (dropped[e]) continue;
    plan.keep.push_back(static_cast<std::int32_t>(e));
    if (!is_protected[e]) lowest_kept = std::min(lowest_kept, score[e]);
  }
  plan.margin = to_drop == 0 || std::isinf(lowest_kept) ? 0 : lowest_kept - highest_dropped;
  return plan;
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

std::vector<std::string> criterion_names() {
  std::vector<std::string> names;
  for (const Criterion& c : criteria()) names.emplace_back(c.name);
  names.emplace_back("random");
  return names;
}

std::vector<std::pair<std::int64_t, std::int64_t>> super_experts(const FieldTotals& totals) {
  std::vector<double> sorted = totals.max_abs;
  if (sorted.empty()) return {};
  std::sort(sorted.begin(), sorted.end());
  const double place = 0.995 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double quantile = sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
  const double threshold = std::max(quantile, sorted.back() / 10);

  std::vector<std::pair<std::int64_t, std::int64_t>> result;
  const std::int64_t layers = totals.layers * 3 / 4;
  for (std::int64_t at = 0; at < layers * totals.experts; ++at) {
    if (totals.max_abs[static_cast<std::size_t>(at)] > threshold)
      result.emplace_back(at / totals.experts, at % totals.experts);
  }
  return result;
}

Plan make_plan(const SaliencyFile& file, const PlanRequest& request) {
  const FieldTotals totals = reap::totals(file.saliency);
  Plan plan;
  plan.request = request;
  plan.model_digest = file.info.model_digest;
  plan.model_type = file.info.model_type;
  plan.calibration_digest = file.info.calibration_digest;
  plan.compute = file.info.compute;
  plan.block_tokens = file.info.block_tokens;
  plan.numerics_id = file.info.numerics_id;
  plan.experts = totals.experts;
  plan.top_k = file.info.top_k;
  plan.kept = kept_experts(request, totals.experts, plan.top_k);

  const std::vector<double> score = scores(totals, request.criterion, request.seed);
  std::vector<std::vector<bool>> is_protected(static_cast<std::size_t>(totals.layers),
                                              std::vector<bool>(static_cast<std::size_t>(totals.experts), false));
  if (request.preserve_super_experts) {
    for (const auto& [layer, expert] : super_experts(totals)) {
      is_protected[static_cast<std::size_t>(layer)][static_cast<std::size_t>(expert)] = true;
    }
  }
  const auto experts = static_cast<std::size_t>(totals.experts);
  for (std::size_t layer = 0; layer < is_protected.size(); ++layer) {
    plan.layers.push_back(plan_layer(std::span(score).subspan(layer * experts, experts),
                                     std::span(totals.count).subspan(layer * experts, experts), is_protected[layer],
                                     plan.kept, static_cast<std::int64_t>(layer)));
  }
  return plan;
}

}  // namespace reap
