#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/plan.hpp"
#include "shard/checkpoint.hpp"
#include "shard/families.hpp"

namespace reap {

enum class Mtp : std::uint8_t { drop, keep };

struct WriteOptions {
  std::int64_t max_shard_bytes = 5'000'000'000;  // of tensor data per file; a larger tensor gets a file of its own
  Mtp mtp = Mtp::drop;
  bool overwrite = false;       // replace an existing output, once the new one is complete
  std::string evaluation = {};  // Markdown for the model card; the weights do not depend on it
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

/// That a pruned model can hold what the request asks for: as many experts in every layer. @throws Error(usage)
void check_equal_counts(const PlanRequest& request);

/// The files of a pruned model: a function of source, plan and options only, never of the ranks. Files are filled in
/// the order of the source (file, then offset), so reading is sequential. Within a file wider element types come first,
/// as the format's own writer has it: every tensor is aligned to its element then.
/// @throws Error(bad_input) when the plan is not one for this model, Error(usage) for a shard size below 1
std::vector<OutputFile> plan_output(const Checkpoint& source, const Model& model, const std::vector<Claim>& claims,
                                    const Plan& plan, const WriteOptions& options);

/// The safetensors header that `file` starts with.
std::string header_text(const OutputFile& file);

/// config.json of the pruned model: the source's text, only what must change changed.
std::string pruned_config(const Checkpoint& source, const Model& model, const Plan& plan, const WriteOptions& options);

/// model.safetensors.index.json of these files: total size of the data, and each tensor's file, by ascending name.
std::string index_text(const std::vector<OutputFile>& files);

}  // namespace reap
