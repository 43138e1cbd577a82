#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "driver/evaluation_file.hpp"
#include "driver/source.hpp"

namespace reap {

/// A model that is compared with the one it was made from.
struct ComparedModel {
  Source source;
  EvaluatedVariant variant;  // without measures; named after the folder
};

/// Opens models that are to be compared with `base`: pruned, quantised, or both. Collective.
/// @throws SharedError(bad_input) for one of another vocabulary or width
std::vector<ComparedModel> all_open_compared(const Comm& world, const Source& base,
                                             const std::vector<std::filesystem::path>& directories);

}  // namespace reap
