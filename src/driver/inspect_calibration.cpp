#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "driver/calibration.hpp"
#include "driver/hdf5.hpp"
#include "driver/inspect_parts.hpp"
#include "kernels/error.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr std::size_t kMostCharacters = 300;  // of a source that is plain text

struct DomainLengths {
  std::int64_t samples = 0, tokens = 0;
};

// Provenance is for reading, and any program may have written it: what is absent or of another kind is left out.

Json member(const Json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found == object.end() ? Json() : *found;
}

/// A text or number; "" for anything else.
std::string text_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_number() || value.is_boolean() ? value.dump() : "";
}

std::string text_of(const Json& object, const char* key) { return text_of(member(object, key)); }

std::string line_unless_empty(std::string_view name, const std::string& value) {
  return value.empty() ? "" : inspect_line(name, value);
}

/// "name a, b, c" on as many lines as that takes; "" for none.
std::string list_lines(std::string_view name, const std::vector<std::string>& parts) {
  constexpr std::size_t kWidth = 78;
  std::string text, line;
  for (const std::string& part : parts) {
    if (!line.empty() && line.size() + part.size() > kWidth) {
      text += inspect_line(text.empty() ? name : "", line + ",");
      line.clear();
    }
    line += (line.empty() ? "" : ", ") + part;
  }
  return text + line_unless_empty(text.empty() ? name : "", line);
}

/// "seed 42", "samples 64": the members that are texts or numbers.
std::vector<std::string> members_of(const Json& object) {
  std::vector<std::string> parts;
  if (!object.is_object()) return parts;
  for (const auto& [name, value] : object.items()) {
    if (const std::string text = text_of(value); !text.empty()) parts.push_back(fmt::format("{} {}", name, text));
  }
  return parts;
}

std::string source_lines(const Json& source) {
  const Json files = member(source, "files");
  std::string name = text_of(source, "dataset");
  if (name.empty() && files.is_array() && !files.empty()) name = text_of(files[0], "name");
  std::string text =
      inspect_line(text_of(source, "domain"),
                   fmt::format("{}{}", name, files.size() > 1 ? fmt::format(", {} files", files.size()) : ""));
  text += inspect_line("", fmt::format("asked for {}; {} of {} rows read, {} samples, {} tokens",
                                       text_of(source, "asked"), text_of(source, "rows_read"), text_of(source, "rows"),
                                       text_of(source, "samples"), text_of(source, "tokens")));
  return text + list_lines("  left out", members_of(member(source, "left_out")));
}

/// The attribute `source` (docs/format/calibration.md), as reap-tools writes it.
std::string provenance_lines(const Json& source) {
  std::string text = list_lines("made by", members_of(member(source, "made_by")));
  text += line_unless_empty("recipe", text_of(source, "recipe"));
  text += list_lines("settings", members_of(member(source, "settings")));
  const Json chat = member(source, "template");
  text += line_unless_empty("chat template", text_of(chat, "file"));
  text += line_unless_empty("  sha-256", text_of(chat, "sha256"));
  const Json sources = member(source, "sources");
  if (!sources.is_array() || sources.empty()) return text;
  text += fmt::format("\n  {:<20}{}\n", "domain", "from");
  for (const Json& each : sources) text += source_lines(each);
  return text;
}

std::string provenance(const Hdf5Reader& file) {
  std::string text;
  if (file.has_attribute("seed")) text += inspect_line("seed", fmt::format("{}", file.integer("seed")));
  if (file.has_attribute("max_len"))
    text += inspect_line("longest allowed", fmt::format("{}", file.integer("max_len")));
  if (!file.has_attribute("source")) return text;
  const std::string source = file.text("source");
  try {
    if (source.starts_with('{')) return text + provenance_lines(parse_json(source, "source"));
  } catch (const Error&) {  // then it is a text like any other
  }
  return text + inspect_line("source", source.substr(0, kMostCharacters));
}

}  // namespace

std::string inspect_calibration(const std::filesystem::path& path) {
  const Calibration calibration = open_calibration(path, std::numeric_limits<std::int32_t>::max());
  const Samples& samples = calibration.samples;
  std::vector<std::int64_t> lengths;
  std::vector<DomainLengths> domains(calibration.domain_names.size());
  for (std::size_t i = 0; i + 1 < samples.offsets.size(); ++i) {
    lengths.push_back(samples.offsets[i + 1] - samples.offsets[i]);
    DomainLengths& domain = domains[samples.domain[i]];
    ++domain.samples;
    domain.tokens += lengths.back();
  }
  std::ranges::sort(lengths);

  std::string text = fmt::format("{}: calibration\n", path.string());
  text += inspect_line("digest", calibration_digest(calibration));
  text += inspect_line("tokenizer", calibration.tokenizer_sha256.empty() ? "not said" : calibration.tokenizer_sha256);
  text += inspect_line("samples", fmt::format("{}", samples.samples()));
  text += inspect_line("tokens", fmt::format("{}", samples.tokens()));
  text += inspect_line("sample length", fmt::format("{} at least, {} in the middle, {} at most", lengths.front(),
                                                    lengths[lengths.size() / 2], lengths.back()));
  text += fmt::format("\n  {:<20}{:>10} {:>12}\n", "domain", "samples", "tokens");
  for (std::size_t i = 0; i < domains.size(); ++i) {
    text +=
        inspect_line(calibration.domain_names[i], fmt::format("{:>10} {:>12}", domains[i].samples, domains[i].tokens));
  }
  const std::string origin = provenance(Hdf5Reader(path));
  return origin.empty() ? text : text + "\nAs its maker says:\n" + origin;
}

}  // namespace reap
