#include "driver/stability_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "driver/gram_choice.hpp"
#include "driver/plan.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

/// Usual ratios; those that leave a token too few experts are not of interest.
std::vector<double> usual_ratios(const SaliencyFile& file) {
  std::vector<double> ratios = {0.25, 0.5};
  std::erase_if(ratios, [&](double ratio) {
    return static_cast<double>(file.saliency.experts) * (1 - ratio) < static_cast<double>(file.info.top_k);
  });
  return ratios;
}

/// "96.9 %, 87.5 % in layer 3": mean and lowest.
std::string agreement_text(const std::vector<double>& halves) {
  const auto lowest = std::ranges::min_element(halves);
  return fmt::format("{:.1f} %, {:.1f} % in layer {}", 100 * mean(halves), 100 * *lowest, lowest - halves.begin());
}

/// "0.42 a layer, 1.3 in layer 3": mean and most.
std::string changes_text(const std::vector<std::optional<CutNoise>>& noise) {
  double sum = 0, most = -1;
  std::size_t known = 0, worst = 0;
  for (std::size_t layer = 0; layer < noise.size(); ++layer) {
    if (!noise[layer]) continue;
    sum += noise[layer]->changes;
    ++known;
    if (noise[layer]->changes > most) most = noise[layer]->changes, worst = layer;
  }
  if (known == 0) return "-";
  return fmt::format("{:.2f} a layer, {:.2f} in layer {}", sum / static_cast<double>(known), most, worst);
}

std::string cut_table(const std::vector<CutStability>& cuts) {
  std::string text = fmt::format("\n  {:<16}{:>6} {:>5}   {:<30}{}\n", "criterion", "ratio", "kept",
                                 "both halves keep (lowest)", "expected changes (most)");
  for (const CutStability& cut : cuts) {
    text += fmt::format("  {:<16}{:>6} {:>5}   {:<30}{}\n", cut.criterion, cut.ratio, cut.kept,
                        agreement_text(cut.halves), changes_text(cut.noise));
  }
  return text;
}

std::string starved_line(const StabilityReport& report) {
  std::size_t experts = 0, layers = 0;
  for (const std::vector<std::int32_t>& layer : report.starved) {
    experts += layer.size();
    layers += layer.empty() ? 0 : 1;
  }
  return fmt::format("\n  Experts with fewer than {} tokens: {}{}\n", report.starved_below, experts,
                     experts == 0 ? "" : fmt::format(", in {} of {} layers", layers, report.starved.size()));
}

std::string domain_table(const CutStability& cut) {
  const DomainCuts& domains = cut.domains;
  std::string text = fmt::format("\n  {:<20}{:<30}{:<30}{}\n", fmt::format("{} {}", cut.criterion, cut.ratio),
                                 "overlap: least", "most", "alone");
  for (std::size_t own = 0; own < domains.names.size(); ++own) {
    std::vector<std::pair<double, std::string>> others;
    for (std::size_t other = 0; other < domains.names.size(); ++other) {
      if (other != own) others.emplace_back(domains.overlap[own][other], domains.names[other]);
    }
    const auto [least, most] = std::ranges::minmax_element(others);
    std::size_t only = 0;
    for (const std::vector<std::int32_t>& layer : domains.only[own]) only += layer.size();
    text += fmt::format("  {:<20}{:<30}{:<30}{}\n", domains.names[own],
                        fmt::format("{:.2f} with {}", least->first, least->second),
                        fmt::format("{:.2f} with {}", most->first, most->second), only);
  }
  return text;
}

Json noise_json(const std::vector<std::optional<CutNoise>>& noise) {
  if (noise.empty()) return nullptr;
  Json json = {{"dispersion", Json::array()}, {"margin", Json::array()}, {"changes", Json::array()}};
  for (const std::optional<CutNoise>& layer : noise) {
    json["dispersion"].push_back(layer ? Json(layer->dispersion) : Json());
    json["margin"].push_back(layer && layer->margin ? Json(*layer->margin) : Json());
    json["changes"].push_back(layer ? Json(layer->changes) : Json());
  }
  return json;
}

Json cut_json(const CutStability& cut) {
  Json json;
  json["criterion"] = cut.criterion;
  json["ratio"] = cut.ratio;
  json["kept"] = cut.kept;
  json["halves"] = cut.halves;
  json["noise"] = noise_json(cut.noise);
  json["domains"] = {{"names", cut.domains.names}, {"overlap", cut.domains.overlap}, {"only", cut.domains.only}};
  return json;
}

/// The experts of each layer in the order in which criterion gram drops them, and the error after each.
Json gram_json(const Saliency& saliency) {
  const WeightedTotals totals = whole_totals(saliency);
  const std::vector<bool> exempt(static_cast<std::size_t>(saliency.experts));
  Json json{{"removed", Json::array()}, {"error", Json::array()}};
  for (std::int64_t layer = 0; layer < saliency.layers; ++layer) {
    const auto first = static_cast<std::size_t>(layer * saliency.experts);
    const auto count = std::span(totals.count).subspan(first, exempt.size());
    RemovalOrder order = removal_order(saliency, layer, count, exempt);
    json["removed"].push_back(std::move(order.expert));
    json["error"].push_back(std::move(order.error));
  }
  return json;
}

}  // namespace

StabilityReport report_stability(const SaliencyFile& file, const StabilityRequest& request) {
  StabilityReport report{request.starved, starved_experts(file.saliency, request.starved), {}};
  for (const std::string& criterion : request.criteria) {
    for (const double ratio : request.ratios.empty() ? usual_ratios(file) : request.ratios) {
      PlanRequest cut;
      cut.criterion = criterion;
      cut.ratio = ratio;
      report.cuts.push_back(cut_stability(file, cut));
    }
  }
  return report;
}

std::string stability_text(const SaliencyFile& file, const StabilityReport& report) {
  std::string text = "\nCuts (docs/numerics.md says what the figures mean)\n" + cut_table(report.cuts);
  text += starved_line(report);
  if (file.info.domains.size() < 2) return text;
  text += "\nWhat each domain would keep by its own saliency (alone: experts that no other would keep)\n";
  for (const CutStability& cut : report.cuts) {
    if (cut.domains.names.size() > 1) text += domain_table(cut);
  }
  return text;
}

std::string stability_json(const SaliencyFile& file, const StabilityReport& report) {
  const SaliencyInfo& info = file.info;
  Json json;
  json["format"] = "reap-stability";
  json["version"] = 1;
  json["model"] = {{"type", info.model_type}, {"digest", info.model_digest}};
  json["calibration"] = info.calibration_digest;
  json["samples"] = info.samples;
  json["tokens"] = info.tokens;
  json["domains"] = Json::array();
  const std::vector<std::int64_t> tokens = domain_tokens(file.saliency, info.top_k);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    json["domains"].push_back({{"name", info.domains[i]}, {"tokens", tokens[i]}});
  }
  json["layers"] = file.saliency.layers;
  json["experts"] = file.saliency.experts;
  json["top_k"] = info.top_k;
  json["starved"] = {{"below", report.starved_below}, {"experts", report.starved}};
  json["cuts"] = Json::array();
  for (const CutStability& cut : report.cuts) json["cuts"].push_back(cut_json(cut));
  if (file.saliency.collected().gram) json["gram"] = gram_json(file.saliency);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace reap
