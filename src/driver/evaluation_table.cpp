#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "driver/evaluation_file.hpp"

namespace reap {
namespace {

constexpr std::size_t kLeastWidth = 10;

/// Perplexities of all samples, then of each domain.
std::string perplexities(const ModelMeasures& measures, const std::vector<std::string>& domains) {
  std::string text = fmt::format(" {:>{}.4f}", perplexity(measures.all), kLeastWidth);
  for (std::size_t domain = 0; domain < domains.size(); ++domain) {
    const MeanMeasures& mean = measures.domains[domain];
    const std::string value = mean.predicted == 0 ? "-" : fmt::format("{:.4f}", perplexity(mean));
    text += fmt::format(" {:>{}}", value, std::max(kLeastWidth, domains[domain].size()));
  }
  return text;
}

std::string kept_text(const std::vector<std::int64_t>& kept) {
  const auto [least, most] = std::ranges::minmax(kept);
  return least == most ? fmt::format("{}", least) : fmt::format("{}-{}", least, most);
}

}  // namespace

std::string evaluation_table(const Evaluation& e) {
  std::size_t width = std::string("unpruned").size();
  for (const EvaluatedVariant& variant : e.variants) width = std::max(width, variant.name.size());
  std::string text = fmt::format("perplexity over {} predicted tokens of {} samples\n\n{:<{}} {:>9}",
                                 e.base.all.predicted, e.samples, "", width, "kept");
  text += fmt::format(" {:>{}}", "all", kLeastWidth);
  for (const std::string& domain : e.domains)
    text += fmt::format(" {:>{}}", domain, std::max(kLeastWidth, domain.size()));
  if (!e.variants.empty()) text += fmt::format(" {:>10} {:>8} {:>8}", "KL", "top-1", "overlap");
  text += fmt::format("\n{:<{}} {:>9}{}\n", e.variants.empty() ? "model" : "unpruned", width, "all",
                      perplexities(e.base, e.domains));
  for (const EvaluatedVariant& variant : e.variants) {
    const MeanMeasures& all = variant.measures.all;
    text += fmt::format("{:<{}} {:>9}{} {:>10.5f} {:>7.2f}% {:>8.4f}\n", variant.name, width, kept_text(variant.kept),
                        perplexities(variant.measures, e.domains), all.kl, 100 * all.top1, all.overlap);
  }
  return text;
}

std::string evaluation_markdown(const Evaluation& e, const ModelMeasures& variant) {
  std::string text = fmt::format(
      "Measured in {} on {} held-out samples, {} predicted tokens (digest `{}`), as masks on the unpruned model.\n\n"
      "| | unpruned | pruned |\n|---|---|---|\n",
      e.compute, e.samples, e.base.all.predicted, e.heldout_digest);
  const auto row = [&](const std::string& name, const MeanMeasures& base, const MeanMeasures& pruned) {
    if (base.predicted == 0) return;
    text += fmt::format("| perplexity, {} | {:.4f} | {:.4f} |\n", name, perplexity(base), perplexity(pruned));
  };
  row("all", e.base.all, variant.all);
  for (std::size_t i = 0; i < e.domains.size(); ++i) row(e.domains[i], e.base.domains[i], variant.domains[i]);
  text += fmt::format("| KL from the unpruned model, per token | 0 | {:.5f} |\n", variant.all.kl);
  text += fmt::format("| same most likely token | 100 % | {:.2f} % |\n", 100 * variant.all.top1);
  return text;
}

}  // namespace reap
