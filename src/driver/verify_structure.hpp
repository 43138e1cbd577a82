#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "driver/manifest.hpp"
#include "shard/checkpoint.hpp"
#include "shard/families.hpp"
#include "shard/model.hpp"

namespace reap {

/// A checkpoint that is understood: every tensor is known and of the right shape, and none is missing.
struct OpenModel {
  explicit OpenModel(Checkpoint opened);
  Checkpoint checkpoint;
  Model model;
  std::vector<Claim> claims;  // by tensor of the checkpoint
};

/// What a tensor of a pruned model has to be: these rows of this tensor of the source, or what is computed from it.
struct Slice {
  const Tensor* source;
  const std::vector<std::int32_t>* rows;  // of axis 0, ascending; null = all of it
  std::optional<Derivation> derived;
};

/// Reads the manifest of a pruned model and checks that its plan is one for the source.
/// @throws Error(bad_input), also when there is none: which experts stayed is not known then
Manifest open_manifest(const std::filesystem::path& output, const OpenModel& source);

/// Checks that config.json differs from the source's in nothing but what pruning changes, and agrees with the manifest.
void verify_config(const Checkpoint& output, const OpenModel& source, const Manifest& manifest);

/// Finds, for every tensor of the output, the slice of the source that the manifest's plan makes it; checks name, dtype
/// and shape, and that every tensor of the source that stays is there.
/// @return [tensor of output.checkpoint]; points into `source` and `manifest`
std::vector<Slice> verify_tensors(const OpenModel& output, const OpenModel& source, const Manifest& manifest);

/// Checks that the manifest lists the files and tensors of the output as they are, and their sources.
void verify_manifest(const OpenModel& output, const std::vector<Slice>& slices, const Manifest& manifest);

/// Checks the index's total size, and that no safetensors file lies beside those of the index: engines that load all
/// there are would take its tensors too.
void verify_index(const Checkpoint& output);

}  // namespace reap
