#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "driver/calibration_parts.hpp"
#include "driver/hdf5.hpp"
#include "shard/saliency.hpp"

namespace reap {

constexpr std::string_view kSaliencySchema = "reap-saliency-1";

/// What a saliency file says about itself, besides the sums. All of it is part of the file's identity; none of it
/// depends on grid, host or clock.
struct SaliencyInfo {
  std::string model_type;
  std::string model_digest;        // sha-256 hex, see model_digest()
  std::string calibration_digest;  // xxh3-128 hex; of the parts, see digest_of()
  std::string compute;             // "fp32" or "bf16"
  std::string numerics_id;
  std::int64_t block_tokens = 0;
  std::int64_t samples = 0;
  std::int64_t tokens = 0;
  std::int64_t top_k = 0;
  std::vector<std::string> domains;  // groups = domains * 2
  /// SHA-256 of the plan whose dropped experts no token was routed to; "" = the model as it is.
  std::string plan_digest = {};
  /// Of what samples the sums are, in order; empty when of one whole calibration file, the ordinary case.
  std::vector<CalibrationPart> parts = {};
  /// What it holds besides the fields: follows from the tables, and is not written by itself.
  Collected collected = {};
};

struct SaliencyFile {
  SaliencyInfo info;
  Saliency saliency;
  /// Per part [groups, layers, experts], because a maximum cannot be subtracted; empty unless there are several parts.
  std::vector<std::vector<float>> part_max_abs = {};
};

/// In which respect `a` is of another identity than `b`, or collects less, as an option or in words; "" when it serves
/// as `b`.
std::string difference(const SaliencyInfo& a, const SaliencyInfo& b);

/// Writes docs/format/saliency.md: to a temporary name, flushed, synced, renamed. The same input gives the same
/// datasets.
/// @throws Error(io)
void write_saliency(const std::filesystem::path& file, const SaliencyFile& saliency);
/// The same for what one pass has observed: at most one part.
void write_saliency(const std::filesystem::path& file, const SaliencyInfo& info, const Saliency& saliency);

/// What an open saliency file says about itself. @throws Error(bad_input), also when it is no saliency file
SaliencyInfo read_saliency_info(const Hdf5Reader& file);

constexpr Collected kAllCollected{.gram = true, .outputs = true, .imatrix = true, .moments = true};

/// Reads and checks a saliency file: schema, shapes, canonical digits, conservation of counts.
/// @param wanted  of what it holds besides the fields: gigabytes, some of it; `info.collected` tells of all
/// @throws Error(bad_input), Error(io)
SaliencyFile read_saliency(const std::filesystem::path& file, const Collected& wanted = kAllCollected);

/// The same, with what plans are made from.
inline SaliencyFile read_saliency_for_plans(const std::filesystem::path& file) {
  return read_saliency(file, {.gram = true});
}

}  // namespace reap
