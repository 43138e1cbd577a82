#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "driver/atomic_file.hpp"
#include "driver/json_members.hpp"
#include "driver/plan.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::string_view kFormat = "reap-plan-1";
constexpr std::uint64_t kMaxPlanBytes = 100'000'000;  // 62 layers of 256 experts are half a megabyte

Json layer_json(const LayerPlan& layer, std::size_t index, bool protects) {
  Json object;
  object["layer"] = index;
  object["keep"] = layer.keep;
  object["margin"] = layer.margin;
  object["preserved"] = layer.preserved;
  if (protects) object["protected"] = layer.protected_experts;
  object["score"] = layer.score;
  object["count"] = layer.count;
  return object;
}

bool ascending_in(const std::vector<std::int32_t>& ids, std::int64_t experts) {
  return std::is_sorted(ids.begin(), ids.end(), std::less_equal<>()) &&
         (ids.empty() || (ids.front() >= 0 && ids.back() < experts));
}

LayerPlan parse_layer(const Json& object, const Plan& plan, std::size_t index, const std::string& what) {
  const std::string where = fmt::format("{}: layer {}", what, index);
  const Members in(object, where);
  if (in.get<std::size_t>("layer") != index) fail(ExitCode::bad_input, "{}: the layers are not in order", where);
  LayerPlan layer;
  layer.keep = in.get<std::vector<std::int32_t>>("keep");
  layer.margin = in.get<double>("margin");
  layer.preserved = in.get<std::vector<std::int32_t>>("preserved");
  if (!plan.request.protect.empty()) layer.protected_experts = in.get<std::vector<std::int32_t>>("protected");
  layer.score = in.get<std::vector<double>>("score");
  layer.count = in.get<std::vector<std::int64_t>>("count");
  const auto experts = static_cast<std::size_t>(plan.experts);
  if (!ascending_in(layer.keep, plan.experts) || !ascending_in(layer.preserved, plan.experts) ||
      !ascending_in(layer.protected_experts, plan.experts)) {
    fail(ExitCode::bad_input, "{}: expert numbers must ascend within [0, {})", where, plan.experts);
  }
  const bool equal = plan.request.allocation == Allocation::layer;
  if (!equal && std::ssize(layer.keep) < plan.top_k) {
    fail(ExitCode::bad_input, "{}: keeps {} experts with top-{} routing", where, layer.keep.size(), plan.top_k);
  }
  if (equal && std::ssize(layer.keep) != plan.kept) {
    fail(ExitCode::bad_input, "{}: keeps {} experts, but the plan says {} for every layer", where, layer.keep.size(),
         plan.kept);
  }
  if (!std::ranges::includes(layer.keep, layer.preserved) ||
      !std::ranges::includes(layer.keep, layer.protected_experts)) {
    fail(ExitCode::bad_input, "{}: an expert is preserved or protected, but not kept", where);
  }
  if (layer.score.size() != experts || layer.count.size() != experts) {
    fail(ExitCode::bad_input, "{}: {} scores and {} counts for {} experts", where, layer.score.size(),
         layer.count.size(), plan.experts);
  }
  return layer;
}

std::vector<PlanDomain> parse_domains(const Json& object, const std::string& what) {
  const auto list = object.find("domains");
  if (list == object.end() || !list->is_array()) fail(ExitCode::bad_input, "{}: 'domains' is not an array", what);
  std::vector<PlanDomain> domains;
  for (const Json& domain : *list) {
    const Members in(domain, what + ": domains");
    domains.push_back({in.get<std::string>("name"), in.get<std::int64_t>("tokens")});
  }
  return domains;
}

PlanRequest parse_request(const Json& object, const std::string& what) {
  const Scope scope(what);
  const Members in(object, what);
  PlanRequest request;
  request.criterion = in.get<std::string>("criterion");
  request.ratio = in.get<double>("ratio");
  request.keep = in.get<std::int64_t>("keep");
  request.keep_multiple = in.get<std::int64_t>("keep_multiple");
  request.seed = in.get<std::uint64_t>("seed");
  request.preserve_super_experts = in.get<bool>("preserve_super_experts");
  read_domain_members(object, request);
  return request;
}

}  // namespace

std::string plan_text(const Plan& plan) {
  const PlanRequest& r = plan.request;
  Json head;
  head["format"] = kFormat;
  head["model_type"] = plan.model_type;
  head["model_digest"] = plan.model_digest;
  head["calibration_digest"] = plan.calibration_digest;
  head["samples"] = plan.samples;
  head["tokens"] = plan.tokens;
  head["domains"] = Json::array();
  for (const PlanDomain& domain : plan.domains) {
    head["domains"].push_back({{"name", domain.name}, {"tokens", domain.tokens}});
  }
  head["compute"] = plan.compute;
  head["block_tokens"] = plan.block_tokens;
  head["numerics_id"] = plan.numerics_id;
  head["criterion"] = r.criterion;
  head["ratio"] = r.ratio;
  head["keep"] = r.keep;
  head["keep_multiple"] = r.keep_multiple;
  head["seed"] = r.seed;
  head["preserve_super_experts"] = r.preserve_super_experts;
  add_domain_members(head, r);
  head["experts"] = plan.experts;
  head["kept"] = plan.kept;
  head["top_k"] = plan.top_k;
  // Names of domains come from files: what is not UTF-8 in them is replaced.
  std::string text = head.dump(1, ' ', false, Json::error_handler_t::replace);
  text.resize(text.size() - 2);  // "\n}": the layers come before it, a line each
  text += ",\n \"layers\": [";
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    text += layer == 0 ? "\n  " : ",\n  ";
    text += layer_json(plan.layers[layer], layer, !r.protect.empty()).dump();
  }
  return text + "\n ]\n}\n";
}

Plan parse_plan(const std::string& text, const std::string& what) {
  const Json json = parse_json(text, what);
  const Members in(json, what);
  if (in.get<std::string>("format") != kFormat) {
    fail(ExitCode::bad_input, "{}: format '{}', expected '{}'", what, in.get<std::string>("format"), kFormat);
  }
  Plan plan;
  plan.request = parse_request(json, what);
  plan.model_type = in.get<std::string>("model_type");
  plan.model_digest = in.get<std::string>("model_digest");
  plan.calibration_digest = in.get<std::string>("calibration_digest");
  plan.samples = in.get<std::int64_t>("samples");
  plan.tokens = in.get<std::int64_t>("tokens");
  plan.domains = parse_domains(json, what);
  plan.compute = in.get<std::string>("compute");
  plan.block_tokens = in.get<std::int64_t>("block_tokens");
  plan.numerics_id = in.get<std::string>("numerics_id");
  plan.experts = in.get<std::int64_t>("experts");
  plan.kept = in.get<std::int64_t>("kept");
  plan.top_k = in.get<std::int64_t>("top_k");
  if (plan.top_k < 1 || plan.kept < plan.top_k || plan.experts < plan.kept) {
    fail(ExitCode::bad_input, "{}: keeps {} of {} experts with top-{} routing", what, plan.kept, plan.experts,
         plan.top_k);
  }
  const auto layers = json.find("layers");
  if (layers == json.end() || !layers->is_array() || layers->empty()) {
    fail(ExitCode::bad_input, "{}: 'layers' must be an array of one object per layer", what);
  }
  std::int64_t kept = 0;
  for (const Json& layer : *layers) {
    plan.layers.push_back(parse_layer(layer, plan, plan.layers.size(), what));
    kept += std::ssize(plan.layers.back().keep);
  }
  if (kept != plan.kept * std::ssize(plan.layers)) {
    fail(ExitCode::bad_input, "{}: its layers keep {} experts, not {} on average", what, kept, plan.kept);
  }
  return plan;
}

void write_plan(const std::filesystem::path& file, const Plan& plan) { write_file_atomically(file, plan_text(plan)); }

Plan read_plan(const std::filesystem::path& file) {
  return parse_plan(InputFile(file).read_text(kMaxPlanBytes), file.string());
}

std::string plan_table(const Plan& plan) {
  const PlanRequest& r = plan.request;
  std::string text =
      fmt::format("{} ({}): {} of {} experts stay in each of {} layers{}\n\n", r.criterion,
                  r.keep > 0 ? fmt::format("keep {}", r.keep) : fmt::format("ratio {}", r.ratio), plan.kept,
                  plan.experts, plan.layers.size(), r.allocation == Allocation::global ? " on average" : "");
  if (!r.domain_weights.empty()) text += fmt::format("weights of domains: {}, else 1\n\n", list_text(r.domain_weights));
  if (!r.protect.empty()) text += fmt::format("protected, above this share of a domain: {}\n\n", list_text(r.protect));
  text += fmt::format("{:>5} {:>6} {:>15} {:>14} {:>12} {:>9} {:>10} {:>10}\n", "layer", "kept", "highest dropped",
                      "lowest kept", "margin", "no token", "preserved", "protected");
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const LayerPlan& layer = plan.layers[l];
    double lowest = std::numeric_limits<double>::infinity(), highest = -lowest;
    for (std::size_t e = 0; e < layer.score.size(); ++e) {
      const auto id = static_cast<std::int32_t>(e);
      const bool kept = std::binary_search(layer.keep.begin(), layer.keep.end(), id);
      const bool exempt =
          std::ranges::binary_search(layer.preserved, id) || std::ranges::binary_search(layer.protected_experts, id);
      if (kept && !exempt) lowest = std::min(lowest, layer.score[e]);
      if (!kept) highest = std::max(highest, layer.score[e]);
    }
    const auto starved = std::count(layer.count.begin(), layer.count.end(), 0);
    text += fmt::format("{:>5} {:>6} {:>15} {:>14.6g} {:>12.4g} {:>9} {:>10} {:>10}\n", l, layer.keep.size(),
                        plan.kept == plan.experts ? "-" : fmt::format("{:.6g}", highest), lowest, layer.margin, starved,
                        layer.preserved.size(), layer.protected_experts.size());
  }
  return text;
}

}  // namespace reap
