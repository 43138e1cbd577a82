#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "driver/saliency_file.hpp"
#include "kernels/dtype.hpp"

namespace reap {

/// The mean output of each expert over the tokens that chose it, in bf16; zeros for one that no token chose.
struct MeanOutputs {
  std::int64_t experts = 0;
  std::int64_t hidden = 0;
  std::vector<bf16> values;  // [layers, experts, hidden]

  std::span<const std::byte> of(std::int64_t layer, std::int64_t expert) const {
    const auto at = static_cast<std::size_t>((layer * experts + expert) * hidden);
    return std::as_bytes(std::span(values).subspan(at, static_cast<std::size_t>(hidden)));
  }
};

/// One division in fp64, rounded to fp32 and then to bf16. @throws Error(usage) when the outputs were not collected
MeanOutputs mean_outputs(const SaliencyFile& saliency);

/// What a plan or a manifest says of the saliency that it rests on.
struct Measured {
  std::string model_digest;
  std::string calibration_digest;
  std::string compute;
  std::int64_t block_tokens = 0;
  std::string numerics_id;
  bool operator==(const Measured&) const = default;
};

/// Those of a saliency file. @throws Error(usage) also when no file is named, Error(bad_input) when it is not the one
/// that `by` says, what read_saliency throws
MeanOutputs read_mean_outputs(const std::filesystem::path& file, const Measured& by);

}  // namespace reap
