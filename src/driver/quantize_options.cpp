#include "driver/quantize_options.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/check.hpp"
#include "kernels/gptq.hpp"

namespace reap {
namespace {

constexpr std::array<std::pair<W4Method, std::string_view>, 4> kMethods{{
    {W4Method::automatic, "default"},
    {W4Method::rtn, "rtn"},
    {W4Method::opt_rtn, "opt-rtn"},
    {W4Method::gptq, "gptq"},
}};

bool is_attention(Part part) { return part == Part::q || part == Part::k || part == Part::v || part == Part::o; }
bool is_expert(Part part) { return part == Part::w1 || part == Part::w3 || part == Part::w2; }

}  // namespace

std::string_view name_of(W4Method method) { return kMethods[static_cast<std::size_t>(method)].second; }

std::optional<W4Method> w4_method_named(std::string_view name) {
  const auto* const found = std::ranges::find(kMethods, name, &std::pair<W4Method, std::string_view>::second);
  if (found == kMethods.end()) return std::nullopt;
  return found->first;
}

bool matches(std::string_view name, std::string_view pattern) {
  // Without recursion: on a difference the last star takes one more character.
  std::size_t n = 0, p = 0;
  std::size_t star = std::string_view::npos, taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++taken;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

std::string_view layer_name(std::string_view weight_name) {
  REAP_CHECK(weight_name.ends_with(".weight"), "{} is not a weight", weight_name);
  return weight_name.substr(0, weight_name.size() - kWeightSuffix.size() - 1);
}

std::optional<QuantizeSpec> rounding_of(const QuantizeOptions& options, Part part, std::string_view name) {
  if (!is_expert(part) && !(is_attention(part) && options.attention)) return std::nullopt;
  const std::string_view layer = layer_name(name);
  if (std::ranges::any_of(options.exclude, [&](const std::string& pattern) { return matches(layer, pattern); })) {
    return std::nullopt;
  }
  switch (options.method) {
    case W4Method::rtn:
      return QuantizeSpec{Rounding::rtn, options.group};
    case W4Method::opt_rtn:
      return QuantizeSpec{Rounding::opt_rtn, options.group};
    case W4Method::gptq:
      return QuantizeSpec{Rounding::gptq, options.group};
    case W4Method::automatic:
      break;
  }
  return QuantizeSpec{is_attention(part) ? Rounding::opt_rtn : Rounding::rtn, options.group};
}

Json to_json(const QuantizeOptions& options) {
  Json json;
  json["format"] = name_of(options.format);
  json["method"] = name_of(options.method);
  if (options.method == W4Method::gptq) json["damping"] = kFeedbackDamping;
  json["bits"] = 4;
  json["group_size"] = options.group;
  json["attention"] = options.attention;
  json["exclude"] = options.exclude;
  const ImportanceUse& importance = options.importance;
  if (!importance.sha256.empty()) json["importance"] = importance.sha256;
  if (importance.least_tokens > 0) {
    json["imatrix_tokens"] = importance.least_tokens;
    json["starved_experts"] = importance.starved;
  }
  return json;
}

QuantizeOptions quantize_options_from(const Json& json) {
  QuantizeOptions options;
  const std::optional<W4Format> format = w4_format_named(json.at("format").get<std::string>());
  const std::optional<W4Method> method = w4_method_named(json.at("method").get<std::string>());
  json.at("group_size").get_to(options.group);
  const bool known_group = options.group == 32 || options.group == 64 || options.group == 128;
  const bool known_damping = method != W4Method::gptq || json.at("damping") == kFeedbackDamping;
  if (!format || !method || !known_group || !known_damping || json.at("bits") != 4) {
    fail(ExitCode::bad_input, "\"quantize\" is of a kind that this program does not know");
  }
  options.format = *format;
  options.method = *method;
  json.at("attention").get_to(options.attention);
  json.at("exclude").get_to(options.exclude);
  if (json.contains("importance")) json.at("importance").get_to(options.importance.sha256);
  if (json.contains("imatrix_tokens")) {
    json.at("imatrix_tokens").get_to(options.importance.least_tokens);
    json.at("starved_experts").get_to(options.importance.starved);
  }
  return options;
}

}  // namespace reap
