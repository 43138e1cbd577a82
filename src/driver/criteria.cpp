#include "driver/criteria.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "driver/plan.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

double sum(const FieldTotals& t, Field field, std::size_t at) { return t.sum[static_cast<std::size_t>(field)][at]; }

double count(const FieldTotals& t, std::size_t at) { return static_cast<double>(t.count[at]); }

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

const std::vector<Criterion>& criteria() {
  static const std::vector<Criterion> kCriteria = {
      {"reap", "sum g|f| / count",
       [](const FieldTotals& t, std::size_t at) { return sum(t, Field::gate_norm, at) / count(t, at); }},
      {"reap_sum", "sum g|f|", [](const FieldTotals& t, std::size_t at) { return sum(t, Field::gate_norm, at); }},
      {"ean_sum", "sum |f|", [](const FieldTotals& t, std::size_t at) { return sum(t, Field::norm, at); }},
      {"ean_mean", "sum |f| / count",
       [](const FieldTotals& t, std::size_t at) { return sum(t, Field::norm, at) / count(t, at); }},
      {"frequency", "count", [](const FieldTotals& t, std::size_t at) { return count(t, at); }},
      {"gate_sum", "sum g", [](const FieldTotals& t, std::size_t at) { return sum(t, Field::gate, at); }},
      {"max_activation", "max |f|", [](const FieldTotals& t, std::size_t at) { return t.max_abs[at]; }},
  };
  return kCriteria;
}

double random_score(std::uint64_t seed, std::int64_t layer, std::int64_t expert) {
  const std::uint64_t bits =
      mixed(mixed(mixed(seed) + static_cast<std::uint64_t>(layer)) + static_cast<std::uint64_t>(expert));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

std::vector<double> scores(const FieldTotals& totals, std::string_view criterion, std::uint64_t seed) {
  std::vector<double> result(totals.count.size(), 0.0);
  if (criterion == "random") {
    for (std::size_t at = 0; at < result.size(); ++at) {
      if (totals.count[at] == 0) continue;
      const auto i = static_cast<std::int64_t>(at);
      result[at] = random_score(seed, i / totals.experts, i % totals.experts);
    }
    return result;
  }
  const auto& all = criteria();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Criterion& c) { return c.name == criterion; });
  if (found == all.end()) {
    fail(ExitCode::usage, "criterion '{}' is not known; there are {}", criterion, fmt::join(criterion_names(), ", "));
  }
  for (std::size_t at = 0; at < result.size(); ++at) {
    if (totals.count[at] > 0) result[at] = found->score(totals, at);
  }
  return result;
}

}  // namespace reap
