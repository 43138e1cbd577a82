#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/hdf5.hpp"
#include "shard/saliency.hpp"

namespace reap {

/// /imatrix of a saliency file or a state (docs/format/saliency.md); nothing is written where none was collected.
void write_input_tables(Hdf5Writer& file, const Saliency& saliency);

/// Reads it into `table`. @throws Error(bad_input) when extents do not fit the table
void read_input_tables(const Hdf5Reader& file, Saliency& table);

/// Extents of a table.
struct InputShape {
  std::int64_t layers, experts, width;
};

/// The sums of one input: [kSquareDigits, width], canonical.
/// @param shape   what the file has to have
/// @param expert  in a table that has experts
/// @throws Error(bad_input) when extents are others, or digits not canonical
std::vector<std::int64_t> read_input_row(const Hdf5Reader& file, InputKind kind, const InputShape& shape,
                                         std::int64_t layer, std::int64_t expert);

/// That digits are canonical, and that experts without tokens have no sums.
/// @param file  for messages
/// @throws Error(bad_input)
void check_input_tables(const std::string& file, const Saliency& table, const FieldTotals& totals);

}  // namespace reap
