#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quantize.hpp"
#include "shard/families.hpp"
#include "shard/json.hpp"
#include "shard/w4a16.hpp"

namespace reap {

/// Which rounding which weights get.
enum class W4Method : std::uint8_t {
  automatic,  // AutoRound's own: opt-rtn for attention, rtn for experts
  rtn,
  opt_rtn,
  gptq,
};

/// What errors are weighed with.
struct ImportanceUse {
  std::string sha256;             // of its file; "" = all inputs alike
  std::int64_t least_tokens = 0;  // of a saliency file: inputs of experts that saw fewer tokens count alike
  std::int64_t starved = 0;       // so many of the output's experts did
  bool operator==(const ImportanceUse&) const = default;
};

/// What a 4-bit output is, all that its bits depend on besides the source and the plan.
struct QuantizeOptions {
  W4Format format = W4Format::auto_round;
  W4Method method = W4Method::automatic;
  std::int64_t group = 0;            // 32, 64 or 128; 0 before it is settled for a model
  bool attention = true;             // or experts only
  std::vector<std::string> exclude;  // layers that stay as they are: names with * for any run of characters
  ImportanceUse importance;
  bool operator==(const QuantizeOptions&) const = default;
};

/// "default", "rtn", "opt-rtn", "gptq".
std::string_view name_of(W4Method method);
std::optional<W4Method> w4_method_named(std::string_view name);

/// Whether `name` is what `pattern` describes, in which * stands for any run of characters.
bool matches(std::string_view name, std::string_view pattern);

/// The name of the layer that a weight belongs to: without ".weight".
std::string_view layer_name(std::string_view weight_name);

/// How a tensor is rounded; nothing when it stays as it is: router, norms, embeddings, head, MTP modules, attention
/// when it is not asked for, and what is excluded.
/// @param name  its name in the output
std::optional<QuantizeSpec> rounding_of(const QuantizeOptions& options, Part part, std::string_view name);

/// For manifests. Canonical.
Json to_json(const QuantizeOptions& options);
/// @throws Error(bad_input), nlohmann's exceptions
QuantizeOptions quantize_options_from(const Json& json);

}  // namespace reap
