#include "driver/criteria.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

double sum(const FieldTotals& t, Field field, std::size_t at) { return t.sum[static_cast<std::size_t>(field)][at]; }

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

bool is_family(const Formula& formula) { return formula.name.ends_with(':'); }

/// The number behind the colon. Beyond [0, 1] lie no criteria but mistakes: below 0 use would count more than once,
/// above 1 it would count against an expert.
double parse_alpha(std::string_view text, std::size_t colon) {
  double alpha = -1;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, alpha);
  if (parsed.ec != std::errc() || parsed.ptr != end || !(alpha >= 0 && alpha <= 1)) {
    fail(ExitCode::usage, "criterion {}: after the colon goes a number from 0 to 1, as in {}:0.5", shown(text),
         text.substr(0, colon));
  }
  return std::abs(alpha);  // -0
}

}  // namespace

const std::vector<Formula>& formulas() {
  using Totals = WeightedTotals;
  static const std::vector<Formula> kFormulas = {
      {"reap", "sum g|f| / count", true,
       [](const Totals& t, std::size_t at, const Parameters&) {
         return sum(t, Field::gate_norm, at) / t.weighted_count[at];
       }},
      // pow(x, 1) is x and pow(x, 0) is 1, so the ends of the family are reap and reap_sum to the bit.
      {"reap:", "sum g|f| / count^ALPHA", true,
       [](const Totals& t, std::size_t at, const Parameters& p) {
         return sum(t, Field::gate_norm, at) / std::pow(t.weighted_count[at], p.alpha);
       }},
      {"reap_sum", "sum g|f|", true,
       [](const Totals& t, std::size_t at, const Parameters&) { return sum(t, Field::gate_norm, at); }},
      {"ean_sum", "sum |f|", true,
       [](const Totals& t, std::size_t at, const Parameters&) { return sum(t, Field::norm, at); }},
      {"ean_mean", "sum |f| / count", true,
       [](const Totals& t, std::size_t at, const Parameters&) {
         return sum(t, Field::norm, at) / t.weighted_count[at];
       }},
      {"frequency", "count", true,
       [](const Totals& t, std::size_t at, const Parameters&) { return t.weighted_count[at]; }},
      {"gate_sum", "sum g", true,
       [](const Totals& t, std::size_t at, const Parameters&) { return sum(t, Field::gate, at); }},
      {"max_activation", "max |f|", false,
       [](const Totals& t, std::size_t at, const Parameters&) { return t.max_abs[at]; }},
      {"gram", "squared error of the layer's output without it and those before it", false, nullptr},
      {"random", "a seeded draw", false,
       [](const Totals& t, std::size_t at, const Parameters& p) {
         const auto i = static_cast<std::int64_t>(at);
         return random_score(p.seed, i / t.experts, i % t.experts);
       }},
  };
  return kFormulas;
}

std::vector<std::string> criterion_names() {
  std::vector<std::string> names;
  for (const Formula& formula : formulas()) {
    names.push_back(std::string(formula.name) + (is_family(formula) ? "ALPHA" : ""));
  }
  return names;
}

Criterion parse_criterion(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon == std::string_view::npos ? colon : colon + 1);
  const auto found = std::ranges::find(formulas(), name, &Formula::name);
  if (found == formulas().end()) {
    fail(ExitCode::usage, "criterion {} is not known; there are {}", shown(text), fmt::join(criterion_names(), ", "));
  }
  if (!is_family(*found)) return {&*found, 0, std::string(name)};
  const double alpha = parse_alpha(text, colon);
  return {&*found, alpha, fmt::format("{}{}", name, alpha)};
}

double random_score(std::uint64_t seed, std::int64_t layer, std::int64_t expert) {
  const std::uint64_t bits =
      mixed(mixed(mixed(seed) + static_cast<std::uint64_t>(layer)) + static_cast<std::uint64_t>(expert));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

std::vector<double> scores(const WeightedTotals& totals, const Criterion& criterion, std::uint64_t seed) {
  if (!criterion.by_expert()) {
    fail(ExitCode::usage, "criterion {} ranks by sums that are there for all samples together only", criterion.name);
  }
  const Parameters parameters{criterion.alpha, seed};
  std::vector<double> result(totals.count.size(), 0.0);
  for (std::size_t at = 0; at < result.size(); ++at) {
    if (totals.count[at] > 0) result[at] = criterion.formula->score(totals, at, parameters);
  }
  return result;
}

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

}  // namespace reap
