#include "driver/evaluation_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "driver/atomic_file.hpp"
#include "driver/json_members.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

constexpr std::string_view kFormat = "reap-evaluation";
constexpr std::int64_t kVersion = 1;
constexpr std::uint64_t kMaxBytes = 1'000'000'000;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json json_of(const MeanMeasures& measures, bool compared) {
  Json object;
  object["predicted"] = measures.predicted;
  object["nll"] = number(measures.nll);
  object["perplexity"] = number(perplexity(measures));
  if (!compared) return object;
  object["kl"] = number(measures.kl);
  object["top1"] = number(measures.top1);
  object["overlap"] = number(measures.overlap);
  return object;
}

void add_measures(Json& object, const ModelMeasures& measures, bool compared) {
  object["all"] = json_of(measures.all, compared);
  object["domains"] = Json::array();
  for (const MeanMeasures& domain : measures.domains) object["domains"].push_back(json_of(domain, compared));
  object["halves"] = Json::array();
  for (const MeanMeasures& half : measures.halves) object["halves"].push_back(json_of(half, compared));
}

Json json_of(const EvaluatedVariant& variant) {
  Json object;
  object["name"] = variant.name;
  object["criterion"] = variant.criterion;
  object["ratio"] = variant.ratio;
  object["kept"] = variant.kept.size() == 1 ? Json(variant.kept.front()) : Json(variant.kept);
  if (variant.model_digest.empty()) {
    object["plan_digest"] = variant.plan_digest;
  } else {
    object["model_digest"] = variant.model_digest;
  }
  add_measures(object, variant.measures, true);
  return object;
}

/// The value of a member that is a number or null.
double number_in(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_null()) return std::numeric_limits<double>::quiet_NaN();
  return Members(object, where).get<double>(key);
}

const Json& member(const Json& object, const char* key, const std::string& where) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (found == object.end()) fail(ExitCode::bad_input, "{}: '{}' is missing", where, key);
  return *found;
}

const Json& list_in(const Json& object, const char* key, const std::string& where) {
  const Json& list = member(object, key, where);
  if (!list.is_array()) fail(ExitCode::bad_input, "{}: '{}' is not an array", where, key);
  return list;
}

MeanMeasures parse_mean(const Json& object, bool compared, const std::string& where) {
  MeanMeasures measures{.kl = 0, .overlap = 1, .top1 = 1};
  measures.predicted = Members(object, where).get<std::int64_t>("predicted");
  measures.nll = number_in(object, "nll", where);
  if (!compared) return measures;
  measures.kl = number_in(object, "kl", where);
  measures.top1 = number_in(object, "top1", where);
  measures.overlap = number_in(object, "overlap", where);
  return measures;
}

ModelMeasures parse_measures(const Json& object, std::size_t domains, bool compared, const std::string& where) {
  ModelMeasures measures;
  measures.all = parse_mean(member(object, "all", where), compared, where);
  for (const Json& domain : list_in(object, "domains", where)) {
    measures.domains.push_back(parse_mean(domain, compared, where));
  }
  const Json& halves = list_in(object, "halves", where);
  if (measures.domains.size() != domains || halves.size() != 2) {
    fail(ExitCode::bad_input, "{}: measures of {} domains and {} halves; there are {} and 2", where,
         measures.domains.size(), halves.size(), domains);
  }
  for (std::size_t half = 0; half < 2; ++half) measures.halves[half] = parse_mean(halves[half], compared, where);
  return measures;
}

EvaluatedVariant parse_variant(const Json& object, const Evaluation& evaluation, const std::string& where) {
  const Members in(object, where);
  EvaluatedVariant variant;
  variant.name = in.get<std::string>("name");
  variant.criterion = in.get<std::string>("criterion");
  variant.ratio = in.get<double>("ratio");
  const bool equal = member(object, "kept", where).is_number();
  variant.kept = equal ? std::vector{in.get<std::int64_t>("kept")} : in.get<std::vector<std::int64_t>>("kept");
  if (variant.kept.empty()) fail(ExitCode::bad_input, "{}: 'kept' names no layer", where);
  if (object.contains("model_digest")) {
    variant.model_digest = in.get<std::string>("model_digest");
  } else {
    variant.plan_digest = in.get<std::string>("plan_digest");
  }
  variant.measures = parse_measures(object, evaluation.domains.size(), true, where);
  return variant;
}

/// That all is there which is read from a choice later.
void check_choice(const Json& choice, const std::string& where) {
  const Members in(choice, where);
  in.get<std::string>("name");
  in.get<std::string>("chosen");
  for (const Json& candidate : list_in(choice, "candidates", where)) {
    Members(candidate, where + ": candidate").get<std::string>("name");
    for (const char* half : {"selection", "report"}) number_in(candidate, half, where + ": candidate");
  }
}

}  // namespace

double perplexity(const MeanMeasures& measures) { return std::exp(measures.nll); }

ModelMeasures measures_of(const PredictionSums& sums, std::int64_t variant) {
  std::vector<std::int64_t> all, half[2];
  ModelMeasures measures;
  for (std::int64_t group = 0; group < sums.groups(); ++group) {
    all.push_back(group);
    half[group % 2].push_back(group);
    if (group % 2 == 1) measures.domains.push_back(sums.mean(variant, std::array{group - 1, group}));
  }
  measures.all = sums.mean(variant, all);
  measures.halves = {sums.mean(variant, half[0]), sums.mean(variant, half[1])};
  return measures;
}

std::string difference(const Evaluation& a, const Evaluation& b) {
  if (a.model_digest != b.model_digest) return "another model";
  if (a.heldout_digest != b.heldout_digest) return "other held-out samples";
  if (a.domains != b.domains) return "other names of domains";
  if (a.samples != b.samples) return fmt::format("{} held-out samples, not {}", a.samples, b.samples);
  if (a.compute != b.compute) return "--compute " + a.compute;
  if (a.block_tokens != b.block_tokens) return fmt::format("--block-tokens {}", a.block_tokens);
  if (a.numerics != b.numerics) return fmt::format("numerics '{}'", a.numerics);
  return "";
}

bool same_variants(const Evaluation& a, const Evaluation& b) {
  return std::ranges::equal(a.variants, b.variants, [](const EvaluatedVariant& x, const EvaluatedVariant& y) {
    return x.name == y.name && x.same_as(y);
  });
}

std::string evaluation_text(const Evaluation& e) {
  Json head;
  head["format"] = kFormat;
  head["version"] = kVersion;
  head["model"] = {{"type", e.model_type}, {"digest", e.model_digest}};
  head["heldout"] = {{"digest", e.heldout_digest}, {"samples", e.samples}, {"tokens", e.tokens}};
  head["compute"] = e.compute;
  head["block_tokens"] = e.block_tokens;
  head["numerics"] = e.numerics;
  head["domains"] = e.domains;
  head["calibration"] = e.calibration_digest.empty() ? Json() : Json(e.calibration_digest);
  head["base"] = Json::object();
  add_measures(head["base"], e.base, false);
  std::string text = "{";
  for (const auto& [key, value] : head.items()) {
    text += fmt::format("{}\n \"{}\": {}", key == "format" ? "" : ",", key, value.dump());
  }
  text += ",\n \"variants\": [";
  for (std::size_t i = 0; i < e.variants.size(); ++i)
    text += (i == 0 ? "\n  " : ",\n  ") + json_of(e.variants[i]).dump();
  text += e.variants.empty() ? "]" : "\n ]";
  if (!e.choice.empty()) text += ",\n \"choice\": " + e.choice.dump();
  return text + "\n}\n";
}

Evaluation parse_evaluation(const std::string& text, const std::string& what) {
  const Json json = parse_json(text, what);
  const Members in(json, what);
  if (in.get<std::string>("format") != kFormat || in.get<std::int64_t>("version") != kVersion) {
    fail(ExitCode::bad_input, "{}: is not a {} of version {}", what, kFormat, kVersion);
  }
  Evaluation e;
  const Members model(member(json, "model", what), what + ": model");
  e.model_type = model.get<std::string>("type");
  e.model_digest = model.get<std::string>("digest");
  const Members heldout(member(json, "heldout", what), what + ": heldout");
  e.heldout_digest = heldout.get<std::string>("digest");
  e.samples = heldout.get<std::int64_t>("samples");
  e.tokens = heldout.get<std::int64_t>("tokens");
  e.compute = in.get<std::string>("compute");
  e.block_tokens = in.get<std::int64_t>("block_tokens");
  e.numerics = in.get<std::string>("numerics");
  e.domains = in.get<std::vector<std::string>>("domains");
  if (!member(json, "calibration", what).is_null()) e.calibration_digest = in.get<std::string>("calibration");
  e.base = parse_measures(member(json, "base", what), e.domains.size(), false, what + ": base");
  for (const Json& variant : list_in(json, "variants", what)) {
    e.variants.push_back(parse_variant(variant, e, fmt::format("{}: variant {}", what, e.variants.size())));
  }
  if (!json.contains("choice")) return e;
  for (const Json& choice : list_in(json, "choice", what)) {
    check_choice(choice, fmt::format("{}: choice {}", what, e.choice.size()));
    e.choice.push_back(choice);
  }
  return e;
}

void write_evaluation(const std::filesystem::path& file, const Evaluation& evaluation) {
  write_file_atomically(file, evaluation_text(evaluation));
}

Evaluation read_evaluation(const std::filesystem::path& file) {
  return parse_evaluation(InputFile(file).read_text(kMaxBytes), file.string());
}

}  // namespace reap
