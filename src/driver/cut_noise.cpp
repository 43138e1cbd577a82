#include "driver/cut_noise.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "driver/criteria.hpp"

namespace reap {
namespace {

constexpr std::int64_t kLeastTokens = 8;   // in each half, for an expert's difference to say something
constexpr std::int64_t kLeastExperts = 4;  // their mean square is sure to within a factor of two then

double total(std::span<const double> values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// Mean over the experts of tokens * (difference of the halves / 2 / score)^2.
std::optional<double> dispersion(const LayerScores& layer) {
  const double all = total(layer.score);
  if (!(total(layer.half_score[0]) > 0 && total(layer.half_score[1]) > 0)) return std::nullopt;
  // Halves are brought to one scale: a sum over half of the samples is half as large, and only ranks matter.
  const double scale[2] = {all / total(layer.half_score[0]), all / total(layer.half_score[1])};
  double sum = 0;
  std::int64_t experts = 0;
  for (std::size_t e = 0; e < layer.score.size(); ++e) {
    if (std::min(layer.half_count[0][e], layer.half_count[1][e]) < kLeastTokens || !(layer.score[e] > 0)) continue;
    const double error = (layer.half_score[0][e] * scale[0] - layer.half_score[1][e] * scale[1]) / 2;
    sum += static_cast<double>(layer.count[e]) * std::pow(error / layer.score[e], 2);
    ++experts;
  }
  if (experts < kLeastExperts) return std::nullopt;
  return sum / static_cast<double>(experts);
}

/// Probability that the true score lies above `cut`.
double above(double score, double error, double cut) {
  if (error > 0) return std::erfc((cut - score) / error / std::sqrt(2.0)) / 2;
  return score > cut ? 1 : 0;
}

/// The cut above which as many true scores are expected as experts are kept.
double expected_cut(std::span<const double> score, const std::vector<double>& error, std::int64_t kept) {
  double low = 0, high = 0;
  for (std::size_t e = 0; e < score.size(); ++e) {
    low = std::min(low, score[e] - 10 * error[e]);
    high = std::max(high, score[e] + 10 * error[e]);
  }
  for (int step = 0; step < 100; ++step) {  // halves the distance until it is within rounding
    const double middle = low + (high - low) / 2;
    double expected = 0;
    for (std::size_t e = 0; e < score.size(); ++e) expected += above(score[e], error[e], middle);
    (expected > static_cast<double>(kept) ? low : high) = middle;
  }
  return high;
}

}  // namespace

std::optional<CutNoise> cut_noise(const LayerScores& layer, std::int64_t kept) {
  const std::optional<double> found = dispersion(layer);
  if (!found) return std::nullopt;
  CutNoise noise;
  noise.dispersion = *found;
  const std::vector<std::int32_t> order = drop_order(layer.score, layer.count);
  const auto dropped = order.size() - static_cast<std::size_t>(kept);
  if (dropped == 0) return noise;

  std::vector<double> error(order.size(), 0);
  for (std::size_t e = 0; e < error.size(); ++e) {
    if (layer.count[e] > 0) {
      error[e] = layer.score[e] * std::sqrt(noise.dispersion / static_cast<double>(layer.count[e]));
    }
  }
  const double cut = expected_cut(layer.score, error, kept);
  for (std::size_t place = dropped; place < order.size(); ++place) {
    const auto e = static_cast<std::size_t>(order[place]);
    if (error[e] > 0) noise.changes += 1 - above(layer.score[e], error[e], cut);
  }
  const auto lowest = static_cast<std::size_t>(order[dropped]), highest = static_cast<std::size_t>(order[dropped - 1]);
  const double both = std::hypot(error[lowest], error[highest]);
  if (both > 0) noise.margin = (layer.score[lowest] - layer.score[highest]) / both;
  return noise;
}

}  // namespace reap
