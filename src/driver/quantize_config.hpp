#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/quantize_options.hpp"
#include "shard/json.hpp"
#include "shard/model.hpp"

namespace reap {

/// What engines read of a 4-bit output (docs/format/w4a16.md): `quantization_config` of its config.json.
/// @param model    the source's
/// @param experts  per layer, in the output
Json quantization_config(const QuantizeOptions& options, const Model& model, std::int64_t experts);

/// The side file with the same object that tools of that format look for; "" where there is none.
std::string quantization_file(W4Format format);

/// Side files of a source that speak of its weights as they were.
bool is_quantization_file(std::string_view name);

/// config.json or a side file as people read it: `json` as the value of a top-level member, indented.
std::string member_text(const Json& json);

}  // namespace reap
