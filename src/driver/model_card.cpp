#include "driver/model_card.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

#include "driver/criteria.hpp"
#include "driver/manifest.hpp"
#include "driver/progress.hpp"
#include "driver/version.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

constexpr std::uint64_t kHeadBytes = 65'536;
constexpr std::string_view kMark = "<!-- model card of a pruned model, by reap_dist -->";

/// A text from a file as plain words of one line of Markdown, also within a table.
std::string plain(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool control = (c >= 0 && c < ' ') || c == '\x7f';
    if (std::string_view("\\`*_[]<>|#&").find(c) != std::string_view::npos) result += '\\';
    result += control ? '?' : c;
  }
  return result;
}

/// The lines of the source's front matter that say under which licence it is, as they are.
std::string licence_lines(std::string_view card) {
  std::istringstream lines{std::string(card)};
  std::string line, result;
  if (!std::getline(lines, line) || (line != "---" && line != "---\r")) return "";
  bool own = false;
  while (std::getline(lines, line)) {
    if (line.ends_with('\r')) line.pop_back();
    if (line == "---") return result;
    const bool continued = line.starts_with(' ') || line.starts_with('-');
    if (!continued)
      own = line.starts_with("license:") || line.starts_with("license_name:") || line.starts_with("license_link:");
    if (own) result += line + "\n";
  }
  return "";  // it never ends, so it is none
}

std::string architecture(const Checkpoint& source) {
  const Json names = source.config().value("architectures", Json());
  return names.is_array() && !names.empty() && names[0].is_string() ? plain(names[0].get<std::string>()) : "";
}

std::string base_section(const Checkpoint& source, const Model& model, const Plan& plan, const CardFacts& facts) {
  std::string text = fmt::format(
      "| | base model | this model |\n|---|---|---|\n"
      "| routed experts in each of {} layers | {} | {} |\n| experts per token | {} | {} |\n| tensors | {} | {} |\n\n",
      model.layers, plan.experts, plan.kept, plan.top_k, plan.top_k,
      readable_bytes(static_cast<std::int64_t>(facts.source_bytes)),
      readable_bytes(static_cast<std::int64_t>(facts.output_bytes)));
  const std::string name = architecture(source);
  text += fmt::format("Base model: {}{}, digest `{}`.", plain(model.type), name.empty() ? "" : ", " + name,
                      plan.model_digest);
  if (!facts.base_card.empty()) text += fmt::format(" Its own card is [{0}]({0}).", facts.base_card);
  return text + "\n";
}

/// "sum g|f| / count"; "" for a criterion that this release does not know.
std::string formula_of(const std::string& criterion) {
  const std::size_t colon = criterion.find(':');
  const std::string name = criterion.substr(0, colon == std::string::npos ? colon : colon + 1);
  const auto found = std::ranges::find(formulas(), name, &Formula::name);
  return found == formulas().end() ? "" : plain(found->formula);
}

std::string wish_lines(const PlanRequest& request) {
  const std::string formula = formula_of(request.criterion);
  std::string text =
      fmt::format("- Criterion: {}{}\n", plain(request.criterion), formula.empty() ? "" : ", " + formula);
  text += request.keep > 0 ? fmt::format("- Asked for: {} experts kept per layer\n", request.keep)
                           : fmt::format("- Asked for: a share of {} dropped in every layer\n", request.ratio);
  if (request.keep_multiple > 1)
    text += fmt::format("- Kept count rounded up to a multiple of {}\n", request.keep_multiple);
  if (request.criterion == "random") text += fmt::format("- Seed: {}\n", request.seed);
  if (request.preserve_super_experts) text += "- Super experts stayed whatever their score\n";
  if (!request.protect.empty()) {
    text += fmt::format("- Experts stayed that carry more than this share of a domain: {}\n",
                        plain(list_text(request.protect)));
  }
  return text;
}

std::string calibration_section(const Plan& plan) {
  std::string text = fmt::format("- Calibration: {} samples, {} tokens, digest `{}`\n", plan.samples, plan.tokens,
                                 plan.calibration_digest);
  text += fmt::format("- Saliency computed in {}, {}, blocks of {} tokens\n", plain(plan.compute),
                      plain(plan.numerics_id), plan.block_tokens);
  if (plan.domains.empty()) return text;
  text += "\n| domain | tokens | weight |\n|---|---|---|\n";
  for (const PlanDomain& domain : plan.domains) {
    const auto weight = std::ranges::find(plan.request.domain_weights, domain.name, &DomainNumber::domain);
    text += fmt::format("| {} | {} | {} |\n", plain(domain.name), domain.tokens,
                        weight == plan.request.domain_weights.end() ? 1 : weight->value);
  }
  return text;
}

std::string quantization_section(const QuantizeOptions& options) {
  std::string text = fmt::format(
      "\n## Weights of 4 bits\nW4A16: symmetric, in groups of {} inputs, format `{}`, method `{}` (the integers and "
      "scales of AutoRound 0.12.2 without\ntuning). Rounded are the experts{}; router, norms, embeddings and head are "
      "the base model's.\n",
      options.group, name_of(options.format), name_of(options.method), options.attention ? " and attention" : "");
  for (const std::string& pattern : options.exclude) text += fmt::format("Not rounded: {}\n", plain(pattern));
  return text;
}

/// "dropping experts (REAP, ...)" and what else was done to the base model.
std::string origin(const Plan& plan, const CardFacts& facts) {
  const std::string paper = "[arXiv:2510.13999](https://arxiv.org/abs/2510.13999)";
  if (!facts.quantize) {
    return fmt::format(
        "from a larger model by dropping experts (REAP, {}). Nothing was trained or converted:\nevery tensor is the "
        "base "
        "model's, or its rows of the experts that stay.",
        paper);
  }
  if (plan.kept == plan.experts)
    return "from another model by rounding weights to 4 bits. Nothing was trained:\nevery tensor is the base model's "
           "or "
           "rounded from one.";
  return fmt::format(
      "from a larger model by dropping experts (REAP, {}) and rounding weights to 4 bits. Nothing was trained:\n"
      "every tensor is the base model's, its rows of the experts that stay, or rounded from one.",
      paper);
}

/// The command of vLLM for the family; "" for one that it is not known of.
std::string serving_section(const Checkpoint& source, const Model& model) {
  if (model.type != "minimax_m2") return "";
  const bool own_code = source.config().contains("auto_map");
  return fmt::format(
      "\n## Serving\nWith vLLM, from the folder of this file; `--tensor-parallel-size` says over how many GPUs:\n```\n"
      "vllm serve .{} --enable-auto-tool-choice --tool-call-parser minimax_m2 \\\n"
      "    --reasoning-parser minimax_m2_append_think\n```\n",
      own_code ? " --trust-remote-code" : "");
}

}  // namespace

std::string model_card(const Checkpoint& source, const Model& model, const Plan& plan, const CardFacts& facts) {
  const bool pruned = plan.kept < plan.experts || !facts.quantize;
  std::string text = fmt::format("---\n{}tags:\n- moe\n{}{}---\n{}\n", licence_lines(card_head(source)),
                                 pruned ? "- pruned\n- reap\n" : "", facts.quantize ? "- w4a16\n" : "", kMark);
  text += fmt::format("# {}, {} of {} experts{}\n\n", plain(model.type), plan.kept, plan.experts,
                      facts.quantize ? ", W4A16" : "");
  text += fmt::format("Made by {} {} [{}]({}) lists them, with digests.\n\n", "reap_dist " + release(),
                      origin(plan, facts), kManifestName, kManifestName);
  if (facts.substitution) {
    text +=
        "In this form every expert keeps its number and its row of the router. One that was dropped is a constant, its "
        "mean\noutput over the calibration samples: `approximate_experts` in config.json lists them, their tensors are "
        "called `approx_value`.\nAn engine has to know of that (vLLM pull request 50415).\n\n";
  }
  text += base_section(source, model, plan, facts);
  if (pruned) text += "\n## How the experts were chosen\n" + wish_lines(plan.request) + calibration_section(plan);
  if (facts.quantize) text += quantization_section(*facts.quantize);
  if (!facts.evaluation.empty()) {
    text += "\n## Evaluation\n" + facts.evaluation + (facts.evaluation.ends_with('\n') ? "" : "\n");
    if (facts.quantize) text += "\nMeasured before the weights were rounded to 4 bits.\n";
  }
  text += serving_section(source, model);
  if (!facts.licences.empty()) {
    text += fmt::format("\n## Licence\nThat of the base model: {}.\n", fmt::join(facts.licences, ", "));
  }
  return text;
}

bool is_model_card(std::string_view text) { return text.substr(0, kHeadBytes).find(kMark) != std::string_view::npos; }

std::string card_head(const Checkpoint& checkpoint) {
  const std::vector<std::string> names = checkpoint.side_files();
  if (!std::ranges::binary_search(names, std::string(kCardName))) return "";
  const InputFile file(checkpoint.directory() / kCardName);
  std::string head(std::min(file.size(), kHeadBytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(head)));
  return head;
}

}  // namespace reap
