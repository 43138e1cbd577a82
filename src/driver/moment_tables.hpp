#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/hdf5.hpp"
#include "shard/saliency.hpp"

namespace reap {

/// /moments of a saliency file or a state (docs/format/saliency.md); nothing is written where none were collected.
void write_moment_tables(Hdf5Writer& file, const Saliency& saliency);

/// Reads them into `table`. @throws Error(bad_input) when extents do not fit the table
void read_moment_tables(const Hdf5Reader& file, Saliency& table);

/// The moments of an input of a layer. @throws Error(bad_input) when they are not of `width` channels, or impossible
std::vector<std::int64_t> read_moments(const Hdf5Reader& file, InputKind kind, std::int64_t layers, std::int64_t width,
                                       std::int64_t layer);

/// That sums are in range, and none beyond what the squares on the diagonal allow.
/// @param file  for messages
/// @throws Error(bad_input)
void check_moment_tables(const std::string& file, const Saliency& table);

}  // namespace reap
