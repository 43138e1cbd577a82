#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/output_plan.hpp"
#include "driver/plan.hpp"
#include "kernels/dtype.hpp"

namespace reap {

constexpr const char* kManifestName = "reap_manifest.json";

/// One tensor of the output and where it comes from.
struct ManifestTensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::string source;  // its name in the source; "" = a constant that stands for an expert
  std::string xxh3;    // xxh3-128 hex of its bytes
};

/// One safetensors file of the output.
struct ManifestFile {
  std::string name;
  std::uint64_t bytes;
  std::string sha256;
  std::vector<ManifestTensor> tensors;  // in the order of the file
};

/// Any other file of the output: config.json, the index, copies of the source's side files.
struct ManifestSideFile {
  std::string name;
  std::uint64_t bytes;
  std::string sha256;
};

/// The plan that was carried out, without its scores.
struct ManifestPlan {
  std::string sha256;  // of plan_text()
  PlanRequest request;
  std::int64_t experts = 0;  // before
  std::int64_t kept = 0;     // after, per layer
  std::int64_t top_k = 0;
  std::vector<std::vector<std::int32_t>> keep;  // [layer][kept] ascending original ids
};

/// How a pruned model came to be, and digests of all that it consists of (docs/format/manifest.md).
struct Manifest {
  std::string software;
  std::string model_type;
  std::string source_digest;  // model_digest() of the source
  std::string output_digest;  // model_digest() of the output
  std::string calibration_digest;
  std::string compute;  // how the saliency was computed: as in the plan
  std::int64_t block_tokens = 0;
  std::string numerics_id;
  ManifestPlan plan;
  std::int64_t max_shard_bytes = 0;
  Mtp mtp = Mtp::drop;
  std::optional<QuantizeOptions> quantize;
  Form form = Form::ordinary;
  std::vector<ManifestFile> files;
  std::vector<ManifestSideFile> side_files;
};

/// Canonical: the same manifest gives the same bytes. One line per layer and per tensor.
std::string manifest_text(const Manifest& manifest);

/// @param what  names the text in errors
/// @throws Error(bad_input) when it is not a manifest of the version that this program writes
Manifest parse_manifest(std::string_view text, std::string_view what);

/// The manifest in an output's directory. @throws Error(bad_input), Error(io)
Manifest read_manifest(const std::filesystem::path& output);

}  // namespace reap
