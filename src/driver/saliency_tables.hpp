#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "driver/hdf5.hpp"
#include "driver/saliency_file.hpp"
#include "shard/saliency.hpp"

namespace reap {

/// What a saliency file and the state of a pass on its way there have in common (docs/format/saliency.md).

/// Where the tokens of experts are, [groups, layers, experts].
constexpr const char* kCountPath = "/fields/count";

/// The attributes. `schema` says which kind of file it is.
void write_info(Hdf5Writer& file, std::string_view schema, const SaliencyInfo& info);
/// @param kind  for messages: "saliency"
/// @throws Error(bad_input) when the schema is another one, or an attribute is missing or impossible
SaliencyInfo read_info(const Hdf5Reader& file, std::string_view schema, std::string_view kind);

/// /fields, /max_abs and what else was collected.
void write_tables(Hdf5Writer& file, const Saliency& saliency);
/// @throws Error(bad_input) when extents do not fit `info` or digits are not canonical
Saliency read_tables(const Hdf5Reader& file, const SaliencyInfo& info, const Collected& wanted);

/// An expert without tokens has no sums, none is chosen twice for one token, and every token has top_k slots per layer.
/// @param file    for messages
/// @param tokens  [layers] that have been through the layer
/// @throws Error(bad_input)
void check_counts(const std::string& file, const Saliency& table, std::int64_t top_k,
                  std::span<const std::int64_t> tokens);

}  // namespace reap
