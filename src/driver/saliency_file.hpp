#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "shard/saliency.hpp"

namespace reap {

/// What a saliency file says about itself, besides the sums. All of it is part of the file's identity; none of it
/// depends on grid, host or clock.
struct SaliencyInfo {
  std::string model_type;
  std::string model_digest;        // sha-256 hex, see model_digest()
  std::string calibration_digest;  // xxh3-128 hex
  std::string compute;             // "fp32" or "bf16"
  std::string numerics_id;
  std::int64_t block_tokens = 0;
  std::int64_t samples = 0;
  std::int64_t tokens = 0;
  std::int64_t top_k = 0;
  std::vector<std::string> domains;  // groups = domains * 2
};

struct SaliencyFile {
  SaliencyInfo info;
  Saliency saliency;
};

/// In which respect `a` is of another identity than `b`, as an option or in words; "" when it is of the same.
std::string difference(const SaliencyInfo& a, const SaliencyInfo& b);

/// Writes docs/format/saliency.md: to a temporary name, flushed, synced, renamed. The same input gives the same
/// datasets.
/// @throws Error(io)
void write_saliency(const std::filesystem::path& file, const SaliencyInfo& info, const Saliency& saliency);

/// Reads and checks a saliency file: schema, shapes, canonical digits, conservation of counts.
/// @throws Error(bad_input), Error(io)
SaliencyFile read_saliency(const std::filesystem::path& file);

}  // namespace reap
