#pragma once

#include <string>

#include "driver/hdf5.hpp"
#include "shard/saliency.hpp"

namespace reap {

/// What a saliency file or a state holds besides the fields: /gram, /outputs, /imatrix and /moments
/// (docs/format/saliency.md), any of them or none. Nothing is written for what was not collected.
void write_output_tables(Hdf5Writer& file, const Saliency& saliency);

/// Whether the file has them.
Collected collected_in(const Hdf5Reader& file);

/// Reads those that are wanted and there into `table`, whose fields have been read. @throws Error(bad_input) when
/// extents do not fit the table, digits are not canonical, or check_output_tables() throws
void read_output_tables(const Hdf5Reader& file, const Collected& wanted, Saliency& table);

/// What is impossible beside the fields: sums of an expert without tokens, squares that are negative or not those of
/// the fields, products of two experts that are larger than their squares allow, outputs beyond count * max_abs.
/// @param file  for messages
/// @throws Error(bad_input)
void check_output_tables(const std::string& file, const Saliency& table);

}  // namespace reap
