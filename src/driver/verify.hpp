#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "driver/mean_outputs.hpp"
#include "driver/quantizer.hpp"
#include "shard/comm.hpp"

namespace reap {

struct VerifyReport {
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;
  std::int64_t experts = 0;  // per layer, in the output
  bool quantised = false;

  /// "every one equals its source", or what else is proved.
  const char* finding() const;
};

/// Proves a pruned model against its source, from the files alone: reads both and compares slice by slice; config,
/// index, headers, gate rows and bias agree with the experts present; nothing is missing, surplus or misnamed; the
/// digests of reap_manifest.json hold; side files are equal. Which experts stayed is taken from the manifest.
/// Weights of 4 bits are derived from the source again, to the same bits.
/// Collective; the files are shared out over the ranks.
/// @param quantizer  needed where there are such weights
/// @param means  what the constants of the form of substitution have to be; null = what the manifest has digests of
/// @throws Error(bad_input) naming the first file and tensor that differ
VerifyReport all_verify(const Comm& world, const std::filesystem::path& source, const std::filesystem::path& output,
                        const std::function<void(std::int64_t bytes)>& progress, Quantizer* quantizer = nullptr,
                        const MeanOutputs* means = nullptr);

}  // namespace reap
