#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver/mean_outputs.hpp"
#include "driver/plan.hpp"
#include "driver/quantize_options.hpp"
#include "driver/serving_limits.hpp"
#include "shard/checkpoint.hpp"
#include "shard/families.hpp"

namespace reap {

class ImportanceSource;

enum class Mtp : std::uint8_t { drop, keep };

/// What becomes of dropped experts. `ordinary`: they are gone, those that stay are renumbered, and so are the rows of
/// the router. `substitution`: every expert keeps its number and its row of the router, and for a dropped one there is
/// the constant that stands for its output; layers may keep unequal numbers.
enum class Form : std::uint8_t { ordinary, substitution };
std::string_view name_of(Form form);

struct WriteOptions {
  std::int64_t max_shard_bytes = 5'000'000'000;  // of tensor data per file; a larger tensor gets a file of its own
  Mtp mtp = Mtp::drop;
  std::optional<QuantizeOptions> quantize = {};             // round weights to 4 bits
  std::shared_ptr<const ImportanceSource> importance = {};  // of the inputs; null: all alike
  bool importance_pending = false;                          // it will come from a file that is still to be made
  Serving serving = {};                                     // of a quantised output: what it has to suit
  bool overwrite = false;                                   // replace an existing output, once the new one is complete
  std::string evaluation = {};  // Markdown for the model card; the weights do not depend on it
  Form form = Form::ordinary;
  std::shared_ptr<const MeanOutputs> means = {};  // for the form of substitution
};

/// How a tensor of the output is computed from a weight of the source.
struct Derivation {
  W4Piece piece = W4Piece::none;  // of the weight rounded to 4 bits; none: the fp8 weight expanded to bf16
  QuantizeSpec rounding{};
  W4Format format{};
  bool operator==(const Derivation&) const = default;
};

/// One tensor of the output: a slice of one source tensor, what is computed from one, or a constant for an expert.
struct OutputTensor {
  TensorInfo info;                 // name, dtype, shape in the output; offset within its file
  std::int64_t source;             // index into checkpoint.tensors(); -1 for a constant
  std::vector<std::int32_t> rows;  // rows of axis 0 that stay, ascending; empty = all of it
  std::optional<Derivation> derived;
  std::span<const std::byte> constant = {};  // points into the means
};

/// The name of the constant that stands for an expert.
std::string constant_name(const Model& model, std::int32_t layer, std::int32_t expert);

/// The member of config.json that names the experts which constants stand for, as JSON.
constexpr const char* kSubstituted = "approximate_experts";
std::string substituted_json(const std::vector<std::vector<std::int32_t>>& keep, std::int64_t experts);

struct OutputFile {
  std::string name;  // model-00001-of-000NN.safetensors
  std::vector<OutputTensor> tensors;
  std::uint64_t bytes;  // header and data
};

/// That a pruned model of this form can hold what the request asks for. @throws Error(usage)
void check_counts_of(const PlanRequest& request, Form form);

/// The files of a pruned model: a function of source, plan and options only, never of the ranks. Files are filled in
/// the order of the source (file, then offset), so reading is sequential. Within a file wider element types come first,
/// as the format's own writer has it: every tensor is aligned to its element then. The tensors that a weight is rounded
/// to stay together and are as wide as the widest of them; their sizes keep the others aligned.
/// @throws Error(bad_input) when the plan is not one for this model, Error(usage) for a shard size below 1
std::vector<OutputFile> plan_output(const Checkpoint& source, const Model& model, const std::vector<Claim>& claims,
                                    const Plan& plan, const WriteOptions& options);

/// The safetensors header that `file` starts with.
std::string header_text(const OutputFile& file);

/// How the weight `name` of the output is computed from its source's type and place; nothing for one that is copied.
/// One that is rounded to 4 bits becomes several tensors (w4_tensors()), of which this is `piece`.
std::optional<Derivation> derivation_of(const WriteOptions& options, Part part, std::string_view name, DType source,
                                        W4Piece piece);

/// The type of compressed-tensors' scales: bf16 holds all that the weights of this type can have.
DType w4_scale_dtype(DType source);

/// config.json of the pruned model: the source's text, only what must change changed.
std::string pruned_config(const Checkpoint& source, const Model& model, const Plan& plan, const WriteOptions& options);

/// model.safetensors.index.json of these files: total size of the data, and each tensor's file, by ascending name.
std::string index_text(const std::vector<OutputFile>& files);

}  // namespace reap
