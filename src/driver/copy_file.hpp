#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "driver/output_plan.hpp"
#include "driver/quantizer.hpp"
#include "shard/checkpoint.hpp"

namespace reap {

/// What was written, hashed on its way from the source to the disk.
struct FileDigests {
  std::uint64_t bytes = 0;
  std::string sha256;
  std::vector<std::string> xxh3;  // xxh3-128 of each tensor, in the order of the file
  bool operator==(const FileDigests&) const = default;
};

/// Writes one safetensors file of the output. Reading, hashing and writing overlap.
/// @param quantizer  computes tensors that are not copies; null where there are none
/// @param progress   called with bytes written since the last call; may be empty
/// @throws Error(io) naming the file
FileDigests copy_tensors(const Checkpoint& source, const OutputFile& file, const std::filesystem::path& directory,
                         Quantizer* quantizer, const std::function<void(std::int64_t bytes)>& progress);

/// Reads a file that copy_tensors() has written and hashes it again.
/// @throws Error(io), Error(bad_input) when it is not there
FileDigests hash_tensors(const OutputFile& file, const std::filesystem::path& directory);

/// Copies a side file byte for byte.
FileDigests copy_side_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace reap
