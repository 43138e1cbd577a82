#include "driver/input_tables.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace reap {
namespace {

std::string path_of(InputKind kind) { return fmt::format("/imatrix/{}", name_of(kind)); }

Extents extents_of(InputKind kind, const InputShape& shape) {
  if (is_per_expert(kind)) return {shape.layers, shape.experts, kSquareDigits, shape.width};
  return {shape.layers, kSquareDigits, shape.width};
}

/// "layer 3, expert 7", or the layer alone.
std::string place_name(InputKind kind, std::int64_t layer, std::int64_t expert) {
  return is_per_expert(kind) ? fmt::format("layer {}, expert {}", layer, expert) : fmt::format("layer {}", layer);
}

}  // namespace

void write_input_tables(Hdf5Writer& file, const Saliency& saliency) {
  if (saliency.imatrix.empty()) return;
  file.group("/imatrix");
  for (const InputKind kind : kInputKinds) {
    const Imatrix::Table& table = saliency.imatrix.at(kind);
    file.dataset<std::int64_t>(path_of(kind), extents_of(kind, {saliency.layers, saliency.experts, table.width}),
                               table.sums);
  }
}

void read_input_tables(const Hdf5Reader& file, Saliency& table) {
  for (const InputKind kind : kInputKinds) {
    Imatrix::Table& inputs = table.imatrix.at(kind);
    inputs.width = file.extents<std::int64_t>(path_of(kind), is_per_expert(kind) ? 4 : 3).back();
    if (inputs.width < 1) fail(ExitCode::bad_input, "{}: {} has no channels", file.file(), path_of(kind));
    inputs.sums = file.read<std::int64_t>(path_of(kind), extents_of(kind, {table.layers, table.experts, inputs.width}));
  }
}

std::vector<std::int64_t> read_input_row(const Hdf5Reader& file, InputKind kind, const InputShape& shape,
                                         std::int64_t layer, std::int64_t expert) {
  const Extents leading = is_per_expert(kind) ? Extents{layer, expert} : Extents{layer};
  std::vector<std::int64_t> row = file.read_slice<std::int64_t>(path_of(kind), extents_of(kind, shape), leading);
  if (canonical_squares(row)) return row;
  fail(ExitCode::bad_input, "{}: {}: {}: digits are not in canonical form: the file is damaged", file.file(),
       path_of(kind), place_name(kind, layer, expert));
}

void check_input_tables(const std::string& file, const Saliency& table, const FieldTotals& totals) {
  for (const InputKind kind : kInputKinds) {
    const Imatrix::Table& inputs = table.imatrix.at(kind);
    const auto size = static_cast<std::size_t>(kSquareDigits * inputs.width);
    const std::int64_t rows = is_per_expert(kind) ? table.experts : 1;
    for (std::int64_t at = 0; at < table.layers * rows; ++at) {
      const auto row = std::span(inputs.sums).subspan(static_cast<std::size_t>(at) * size, size);
      const bool unseen = is_per_expert(kind) && totals.count[static_cast<std::size_t>(at)] == 0;
      const bool zero = std::ranges::all_of(row, [](std::int64_t digit) { return digit == 0; });
      if (canonical_squares(row) && (zero || !unseen)) continue;
      fail(ExitCode::bad_input, "{}: {}: {}: {}: the file is damaged", file, path_of(kind),
           place_name(kind, at / rows, at % rows),
           unseen ? "sums of an expert without tokens" : "digits are not in canonical form");
    }
  }
}

}  // namespace reap
