#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "driver/plan.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/families.hpp"

namespace reap {

enum class Mtp : std::uint8_t { drop, keep };

struct WriteOptions {
  std::int64_t max_shard_bytes = 5'000'000'000;  // a larger tensor gets a file of its own
  Mtp mtp = Mtp::drop;
  bool overwrite = false;  // replace an existing output, once the new one is complete
};

/// One tensor of the output: a slice of one source tensor.
struct OutputTensor {
  TensorInfo info;                 // name, dtype, shape in the output; offset within its file
  std::int64_t source;             // index into checkpoint.tensors()
  std::vector<std::int32_t> rows;  // rows of axis 0 that stay, ascending; empty = all of it
};

struct OutputFile {
  std::string name;  // model-00001-of-000NN.safetensors
  std::vector<OutputTensor> tensors;
  std::uint64_t bytes;  // header and data
};

/// The files of a pruned model: a function of source, plan and options only, never of the ranks. Tensors keep the order of
/// the source (file, then offset), so reading and writing are sequential.
std::vector<OutputFile> plan_output(const Checkpoint& source, const Model& model, const std::vector<Claim>& claims,
                                    const Plan& plan, const WriteOptions& options);

/// config.json of the pruned model: the source's text, only what must change changed.
std::string pruned_config(const Checkpoint& source, const Model& model, const Plan& plan, const WriteOptions& options);

/// Writes the pruned model in parallel, each rank whole files, to `<output>.tmp`-like directory, then fsync and one rename.
/// An existing `output` is refused (Error(bad_input)) unless options.overwrite. Nothing is left under the final name
/// unless it is complete. Collective.
/// @param progress  called on each rank with bytes written since the last call; may be empty
/// @throws Error(io) on every rank, naming the file, when any rank fails
void all_write_checkpoint(const Comm& world, const Checkpoint& source, const Model& model, const Plan& plan,
                          const std::filesystem::path& output, const WriteOptions& options,
                          const std::function<void(std::int64_t bytes)>& progress);

}  // namespace reap
