#pragma once

#include <string>

#include "driver/hdf5.hpp"
#include "shard/saliency.hpp"

namespace reap {

/// /imatrix of a saliency file or a state (docs/format/saliency.md); nothing is written where none was collected.
void write_input_tables(Hdf5Writer& file, const Saliency& saliency);

/// Reads it into `table`. @throws Error(bad_input) when extents do not fit the table
void read_input_tables(const Hdf5Reader& file, Saliency& table);

/// That digits are canonical, and that experts without tokens have no sums.
/// @param file  for messages
/// @throws Error(bad_input)
void check_input_tables(const std::string& file, const Saliency& table, const FieldTotals& totals);

}  // namespace reap
