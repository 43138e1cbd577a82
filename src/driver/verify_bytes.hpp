#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "driver/manifest.hpp"
#include "driver/quantizer.hpp"
#include "driver/verify_structure.hpp"

namespace reap {

/// Reads file `file` of the output once, from front to back, and compares every tensor's bytes with its slice of the
/// source, and digests with the manifest. Reading, hashing and comparing overlap.
/// @param quantizer  computes what is not copied; null where there is no such tensor
/// @param progress   called with bytes compared since the last call; may be empty
/// @throws Error(bad_input) naming file and tensor
void verify_file(const OpenModel& output, const OpenModel& source, const std::vector<Slice>& slices,
                 const Manifest& manifest, std::size_t file, Quantizer* quantizer,
                 const std::function<void(std::int64_t bytes)>& progress);

/// Compares the side files of output and source, and all that are not safetensors with the manifest.
void verify_side_files(const Checkpoint& output, const Checkpoint& source, const Manifest& manifest);

}  // namespace reap
