#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "driver/manifest.hpp"
#include "shard/checkpoint.hpp"
#include "shard/families.hpp"
#include "shard/model.hpp"

namespace reap {

/// A checkpoint that is understood: every tensor is known and of the right shape, and none is missing.
struct OpenModel {
  explicit OpenModel(Checkpoint opened);
  /// One in the form of substitution, which is understood by its names in the source: without claims.
  OpenModel(Checkpoint opened, Model described);
  Checkpoint checkpoint;
  Model model;
  std::vector<Claim> claims;  // by tensor of the checkpoint
};

/// What a tensor of a pruned model has to be: these rows of this tensor of the source, what is computed from it, or
/// a constant that stands for an expert.
struct Slice {
  const Tensor* source;                   // null for a constant
  const std::vector<std::int32_t>* rows;  // of axis 0, ascending; null = all of it
  std::optional<Derivation> derived;
  std::span<const std::byte> constant = {};  // empty = not known: what the manifest has a digest of
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

/// The same for the form of substitution. @param means  what the constants have to be; null = not known
std::vector<Slice> verify_substituted(const OpenModel& output, const OpenModel& source, const Manifest& manifest,
                                      const MeanOutputs* means);

/// Checks that the manifest lists the files and tensors of the output as they are, and their sources.
void verify_manifest(const OpenModel& output, const std::vector<Slice>& slices, const Manifest& manifest);

/// Checks the index's total size, and that no safetensors file lies beside those of the index: engines that load all
/// there are would take its tensors too.
void verify_index(const Checkpoint& output);

}  // namespace reap
