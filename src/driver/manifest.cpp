#include "driver/manifest.hpp"

#include <fmt/format.h>

#include <iterator>
#include <optional>

#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::string_view kFormat = "reap-manifest";
constexpr std::int64_t kVersion = 1;
constexpr std::uint64_t kMaxManifestBytes = 1'000'000'000;

std::string_view name_of(Mtp mtp) { return mtp == Mtp::keep ? "keep" : "drop"; }

/// `text` as a JSON string.
std::string json_string(std::string_view text) { return Json(text).dump(); }

/// The lines of a JSON array, each one element.
template <class Items, class Line>
std::string json_lines(const Items& items, std::string_view indent, const Line& line) {
  std::string text = "[";
  for (const auto& item : items) {
    fmt::format_to(std::back_inserter(text), "{}\n{} ", text.size() == 1 ? "" : ",", indent);
    line(text, item);
  }
  fmt::format_to(std::back_inserter(text), "\n{}]", indent);
  return text;
}

// Made by hand, line by line: a document of 100,000 tensors would take a hundred megabytes on its way to a string.
void add_tensor(std::string& text, const ManifestTensor& tensor) {
  fmt::format_to(std::back_inserter(text),
                 R"({{"name": {}, "dtype": "{}", "shape": [{}], "source": {}, "xxh3": "{}"}})",
                 json_string(tensor.name), reap::name_of(tensor.dtype), fmt::join(tensor.shape, ", "),
                 json_string(tensor.source), tensor.xxh3);
}

void add_file(std::string& text, const ManifestFile& file) {
  fmt::format_to(std::back_inserter(text), R"({{"name": {}, "bytes": {}, "sha256": "{}", "tensors": )",
                 json_string(file.name), file.bytes, file.sha256);
  text += json_lines(file.tensors, "  ", add_tensor) + "}";
}

void add_side_file(std::string& text, const ManifestSideFile& file) {
  fmt::format_to(std::back_inserter(text), R"({{"name": {}, "bytes": {}, "sha256": "{}"}})", json_string(file.name),
                 file.bytes, file.sha256);
}

void add_keep(std::string& text, const std::vector<std::int32_t>& keep) {
  fmt::format_to(std::back_inserter(text), "[{}]", fmt::join(keep, ", "));
}

std::string plan_member(const ManifestPlan& plan) {
  const PlanRequest& request = plan.request;
  Json head;
  head["sha256"] = plan.sha256;
  head["criterion"] = request.criterion;
  head["ratio"] = request.ratio;
  head["keep_asked"] = request.keep;
  head["keep_multiple"] = request.keep_multiple;
  head["seed"] = request.seed;
  head["preserve_super_experts"] = request.preserve_super_experts;
  add_domain_members(head, request);
  head["experts"] = plan.experts;
  head["kept"] = plan.kept;
  head["top_k"] = plan.top_k;
  std::string text = head.dump(-1, ' ', false, Json::error_handler_t::replace);  // names of domains may be any bytes
  text.pop_back();                                                               // the closing brace: the lists follow
  return text + ",\n  \"keep\": " + json_lines(plan.keep, "  ", add_keep) + "}";
}

// Reading. Members are taken by at() and get_to(), which throw nlohmann's exceptions on what is not there or of another
// type; parse_manifest turns them into ours.

std::string hex_digest(const Json& value, std::size_t digits) {
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() != digits || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    fail(ExitCode::bad_input, "{} is not a digest of {} hexadecimal digits", shown(text), digits);
  }
  return text;
}

std::string sha256_digest(const Json& value) { return hex_digest(value, 64); }
std::string xxh3_digest(const Json& value) { return hex_digest(value, 32); }

std::uint64_t byte_count(const Json& value) {
  if (!value.is_number_unsigned()) fail(ExitCode::bad_input, "\"bytes\" is not a number of bytes");
  return value.get<std::uint64_t>();
}

ManifestTensor read_tensor(const Json& entry) {
  const auto& dtype_name = entry.at("dtype").get_ref<const std::string&>();
  const std::optional<DType> dtype = dtype_named(dtype_name);
  if (!dtype) fail(ExitCode::bad_input, "unknown dtype {}", shown(dtype_name));
  return {entry.at("name"), *dtype, entry.at("shape").get<std::vector<std::int64_t>>(), entry.at("source"),
          xxh3_digest(entry.at("xxh3"))};
}

ManifestFile read_file(const Json& entry) {
  ManifestFile file{entry.at("name"), byte_count(entry.at("bytes")), sha256_digest(entry.at("sha256")), {}};
  for (const Json& tensor : entry.at("tensors")) file.tensors.push_back(read_tensor(tensor));
  return file;
}

ManifestPlan read_plan_member(const Json& entry) {
  ManifestPlan plan;
  plan.sha256 = sha256_digest(entry.at("sha256"));
  entry.at("criterion").get_to(plan.request.criterion);
  entry.at("ratio").get_to(plan.request.ratio);
  entry.at("keep_asked").get_to(plan.request.keep);
  entry.at("keep_multiple").get_to(plan.request.keep_multiple);
  entry.at("seed").get_to(plan.request.seed);
  entry.at("preserve_super_experts").get_to(plan.request.preserve_super_experts);
  read_domain_members(entry, plan.request);
  entry.at("experts").get_to(plan.experts);
  entry.at("kept").get_to(plan.kept);
  entry.at("top_k").get_to(plan.top_k);
  entry.at("keep").get_to(plan.keep);
  return plan;
}

Manifest manifest_from(const Json& document) {
  if (document.at("format") != kFormat || document.at("version") != kVersion) {
    fail(ExitCode::bad_input, "is not a {} of version {}", kFormat, kVersion);
  }
  Manifest manifest;
  document.at("software").get_to(manifest.software);
  document.at("model_type").get_to(manifest.model_type);
  manifest.source_digest = sha256_digest(document.at("source_digest"));
  manifest.output_digest = sha256_digest(document.at("output_digest"));
  document.at("calibration_digest").get_to(manifest.calibration_digest);
  document.at("compute").get_to(manifest.compute);
  document.at("block_tokens").get_to(manifest.block_tokens);
  document.at("numerics_id").get_to(manifest.numerics_id);
  manifest.plan = read_plan_member(document.at("plan"));
  document.at("options").at("max_shard_bytes").get_to(manifest.max_shard_bytes);
  manifest.mtp = document.at("options").at("mtp") == name_of(Mtp::keep) ? Mtp::keep : Mtp::drop;
  if (const Json& options = document.at("options"); options.contains("quantize")) {
    manifest.quantize = quantize_options_from(options["quantize"]);
  }
  const auto form = document.at("options").find("form");
  if (form != document.at("options").end()) {
    if (*form != reap::name_of(Form::substitution)) fail(ExitCode::bad_input, "unknown form {}", form->dump());
    manifest.form = Form::substitution;
  }
  for (const Json& file : document.at("files")) manifest.files.push_back(read_file(file));
  for (const Json& file : document.at("side_files")) {
    manifest.side_files.push_back({file.at("name"), byte_count(file.at("bytes")), sha256_digest(file.at("sha256"))});
  }
  return manifest;
}

}  // namespace

std::string manifest_text(const Manifest& manifest) {
  Json options;
  options["max_shard_bytes"] = manifest.max_shard_bytes;
  options["mtp"] = name_of(manifest.mtp);
  if (manifest.quantize) options["quantize"] = to_json(*manifest.quantize);
  if (manifest.form != Form::ordinary) options["form"] = reap::name_of(manifest.form);
  std::string text = "{";
  const auto add = [&](std::string_view key, const std::string& json) {
    fmt::format_to(std::back_inserter(text), "{}\n \"{}\": {}", text.size() == 1 ? "" : ",", key, json);
  };
  add("format", json_string(kFormat));
  add("version", fmt::to_string(kVersion));
  add("software", json_string(manifest.software));
  add("model_type", json_string(manifest.model_type));
  add("source_digest", json_string(manifest.source_digest));
  add("output_digest", json_string(manifest.output_digest));
  add("calibration_digest", json_string(manifest.calibration_digest));
  add("compute", json_string(manifest.compute));
  add("block_tokens", fmt::to_string(manifest.block_tokens));
  add("numerics_id", json_string(manifest.numerics_id));
  add("plan", plan_member(manifest.plan));
  add("options", options.dump());
  add("files", json_lines(manifest.files, " ", add_file));
  add("side_files", json_lines(manifest.side_files, " ", add_side_file));
  return text + "\n}\n";
}

Manifest parse_manifest(std::string_view text, std::string_view what) {
  const Json document = parse_json(text, what);
  const Scope scope{std::string(what)};
  try {
    return manifest_from(document);
  } catch (const nlohmann::json::exception& error) {
    fail(ExitCode::bad_input, "not a manifest: {}", error.what());
  }
}

Manifest read_manifest(const std::filesystem::path& output) {
  const std::filesystem::path path = output / kManifestName;
  return parse_manifest(InputFile(path).read_text(kMaxManifestBytes), path.string());
}

}  // namespace reap
