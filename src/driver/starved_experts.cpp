#include "driver/starved_experts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace reap {
namespace {

constexpr std::size_t kMostLayers = 8;    // that get a line of their own
constexpr std::size_t kMostExperts = 16;  // that such a line names

std::string layer_line(std::size_t layer, const std::vector<std::int32_t>& experts) {
  const std::size_t named = std::min(experts.size(), kMostExperts);
  std::string line = fmt::format("  layer {}: {} {}", layer, experts.size() == 1 ? "expert" : "experts",
                                 fmt::join(std::span(experts).first(named), ", "));
  if (named < experts.size()) line += fmt::format(" and {} more", experts.size() - named);
  return line;
}

}  // namespace

StarvedExperts starved_experts(const ImportanceSource& importance, const QuantizeOptions& options, const Source& source,
                               const Plan& plan) {
  StarvedExperts found(plan.layers.size());
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const auto number = static_cast<std::int32_t>(layer);
    const std::string weight = tensor_name(source.model, {.part = Part::w1, .layer = number, .expert = 0});
    const std::optional<QuantizeSpec> rounding = rounding_of(options, Part::w1, weight);
    if (!rounding || rounding->rounding == Rounding::rtn) continue;
    std::ranges::set_intersection(importance.starved(number), plan.layers[layer].keep,
                                  std::back_inserter(found[layer]));
  }
  return found;
}

std::int64_t count_of(const StarvedExperts& experts) {
  std::int64_t count = 0;
  for (const std::vector<std::int32_t>& layer : experts) count += static_cast<std::int64_t>(layer.size());
  return count;
}

std::vector<std::string> starved_lines(const StarvedExperts& experts, std::int64_t of, std::int64_t least_tokens) {
  const std::int64_t count = count_of(experts);
  if (count == 0) return {};
  std::vector<std::string> lines{
      fmt::format("{} of {} experts saw fewer than {} tokens: their inputs count alike", count, of, least_tokens)};
  std::size_t layers = 0;
  for (std::size_t layer = 0; layer < experts.size(); ++layer) {
    if (experts[layer].empty()) continue;
    if (++layers <= kMostLayers) lines.push_back(layer_line(layer, experts[layer]));
  }
  if (layers > kMostLayers) lines.push_back(fmt::format("  and in {} more layers", layers - kMostLayers));
  return lines;
}

}  // namespace reap
