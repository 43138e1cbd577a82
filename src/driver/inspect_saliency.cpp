#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "driver/criteria.hpp"
#include "driver/exemptions.hpp"
#include "driver/inspect_parts.hpp"
#include "driver/saliency_file.hpp"

namespace reap {
namespace {

std::string domain_table(const SaliencyFile& file) {
  std::string text = fmt::format("\n  {:<20}{:>12}\n", "domain", "tokens");
  const std::vector<std::int64_t> tokens = domain_tokens(file.saliency, file.info.top_k);
  for (std::size_t domain = 0; domain < tokens.size(); ++domain) {
    text += inspect_line(file.info.domains[domain], fmt::format("{:>12}", tokens[domain]));
  }
  return text;
}

std::string part_line(const CalibrationPart& part) {
  const std::string samples = part.whole()
                                  ? fmt::format("all {} samples", part.file_samples)
                                  : fmt::format("samples {} to {} of {}", part.first, part.last - 1, part.file_samples);
  return fmt::format("{}  {}, {} tokens", part.digest, samples, part.tokens);
}

std::string layer_row(const FieldTotals& total, const std::vector<double>& reap, std::int64_t layer) {
  const auto first = layer * total.experts, last = first + total.experts;
  std::vector<double> score(reap.begin() + first, reap.begin() + last);
  std::ranges::sort(score);
  const double median = (score[(score.size() - 1) / 2] + score[score.size() / 2]) / 2;
  const auto count = std::span(total.count).subspan(static_cast<std::size_t>(first), score.size());
  const auto peak = std::max_element(total.max_abs.begin() + first, total.max_abs.begin() + last);
  return fmt::format("{:>7} {:>10} {:>10} {:>12.5g} {:>12.5g} {:>12.5g} {:>9} {:>11.5g} {:>6}\n", layer,
                     std::ranges::min(count), std::ranges::max(count), score.front(), median, score.back(),
                     std::ranges::count(count, 0), *peak, peak - total.max_abs.begin() - first);
}

std::string super_expert_lines(const FieldTotals& total) {
  std::string text;
  for (const auto& [layer, expert] : super_experts(total)) {
    const auto cell = static_cast<std::size_t>(layer * total.experts + expert);
    text += fmt::format("  layer {:>3}, expert {:>3}: max |f| {:.5g}\n", layer, expert, total.max_abs[cell]);
  }
  return text.empty() ? "\nNo super experts.\n" : "\nSuper experts (see --preserve-super-experts):\n" + text;
}

}  // namespace

std::string inspect_saliency(const std::filesystem::path& path, const StabilityRequest& request) {
  const SaliencyFile file = read_saliency(path);
  const SaliencyInfo& info = file.info;
  std::string text = fmt::format("{}: saliency\n", path.string());
  text += inspect_line("model", fmt::format("{}, {}", info.model_type, info.model_digest));
  text += inspect_line("calibration", info.calibration_digest);
  for (const CalibrationPart& part : info.parts) text += inspect_line("  of", part_line(part));
  text += inspect_line("compute", fmt::format("{}, blocks of {} tokens", info.compute, info.block_tokens));
  text += inspect_line("numerics", info.numerics_id);
  if (!info.plan_digest.empty()) text += inspect_line("routing", "of plan " + info.plan_digest);
  text += inspect_line("samples", fmt::format("{}, {} tokens", info.samples, info.tokens));
  text += inspect_line("experts", fmt::format("{} in each of {} layers, top-{}", file.saliency.experts,
                                              file.saliency.layers, info.top_k));
  text += domain_table(file);

  const WeightedTotals total = whole_totals(file.saliency);
  const std::vector<double> reap = scores(total, parse_criterion("reap"), 0);
  text += fmt::format("\n{:>7} {:^21} {:^38} {:>9} {:^18}\n", "", "tokens per expert", "reap = sum g|f| / count",
                      "experts", "largest |f|");
  text += fmt::format("{:>7} {:>10} {:>10} {:>12} {:>12} {:>12} {:>9} {:>11} {:>6}\n", "layer", "least", "most",
                      "lowest", "median", "highest", "unused", "value", "expert");
  for (std::int64_t layer = 0; layer < total.layers; ++layer) text += layer_row(total, reap, layer);
  return text + super_expert_lines(total) + stability_text(file, report_stability(file, request));
}

}  // namespace reap
