#include "driver/verify_structure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "driver/digest.hpp"
#include "driver/quantize_config.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxIndexBytes = 1'000'000'000;

std::string path_of(const Checkpoint& checkpoint, const Tensor& tensor) {
  return (checkpoint.directory() / checkpoint.files()[tensor.file]).string();
}

/// A value for a message: long ones are cut.
std::string brief(const Json& value) {
  constexpr std::size_t kMost = 100;
  const std::string text = value.dump();
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

/// The plan lists, for every layer of the source, as many of its experts as it says, and enough for a token.
void check_plan(const std::string& path, const ManifestPlan& plan, Form form, const Model& model) {
  if (plan.experts != model.router.experts || std::cmp_not_equal(plan.keep.size(), model.layers)) {
    fail(ExitCode::bad_input, "{}: the plan is for {} layers of {} experts, the source has {} of {}", path,
         plan.keep.size(), plan.experts, model.layers, model.router.experts);
  }
  if (plan.kept < model.router.top_k) {
    fail(ExitCode::bad_input, "{}: {} experts are kept, a token is routed to {}", path, plan.kept, model.router.top_k);
  }
  for (std::size_t layer = 0; layer < plan.keep.size(); ++layer) {
    const std::vector<std::int32_t>& keep = plan.keep[layer];
    const bool ascending = std::adjacent_find(keep.begin(), keep.end(), std::greater_equal<>()) == keep.end();
    const bool counts = form == Form::substitution || std::cmp_equal(keep.size(), plan.kept);
    if (!counts || keep.empty() || !ascending || keep.front() < 0 || keep.back() >= plan.experts) {
      fail(ExitCode::bad_input, "{}: the experts kept of layer {} are not {} ascending numbers below {}", path, layer,
           plan.kept, plan.experts);
    }
  }
}

bool has_mtp(const std::vector<Claim>& claims) {
  return std::any_of(claims.begin(), claims.end(), [](const Claim& claim) { return claim.part == Part::mtp; });
}

/// Members that pruning changes, and what to.
std::unordered_map<std::string, Json> changed_members(const OpenModel& source, const Manifest& manifest) {
  std::unordered_map<std::string, Json> changed;
  if (manifest.form == Form::substitution) {
    changed.emplace(kSubstituted,
                    parse_json(substituted_json(manifest.plan.keep, manifest.plan.experts), kSubstituted));
  } else {
    changed.emplace("num_local_experts", manifest.plan.kept);
  }
  if (has_mtp(source.claims) && manifest.mtp == Mtp::drop) {
    changed.emplace("num_mtp_modules", 0);
    changed.emplace("use_mtp", false);
  }
  if (manifest.quantize) {
    changed.emplace("quantization_config", quantization_config(*manifest.quantize, source.model, manifest.plan.kept));
  }
  return changed;
}

/// The claim that the tensor's source has in the source.
Claim source_claim(Claim claim, const ManifestPlan& plan) {
  if (claim.expert >= 0) claim.expert = plan.keep[claim.layer][claim.expert];
  return claim;
}

bool is_sliced(const Claim& claim) { return claim.part == Part::gate || claim.part == Part::gate_bias; }

void check_shape(const Checkpoint& output, const Tensor& tensor, const Slice& slice) {
  std::vector<std::int64_t> shape = slice.source->shape;
  DType dtype = slice.source->dtype;
  if (slice.rows != nullptr) shape[0] = static_cast<std::int64_t>(slice.rows->size());
  if (slice.derived && slice.derived->piece == W4Piece::none) dtype = DType::bf16;
  if (slice.derived && slice.derived->piece != W4Piece::none) {
    const auto& [piece, rounding, format] = *slice.derived;
    for (const W4Tensor& part : w4_tensors(format, shape[0], shape[1], rounding.group, w4_scale_dtype(dtype))) {
      if (part.piece != piece) continue;
      dtype = part.dtype;
      shape = part.shape;
      break;
    }
  }
  if (tensor.dtype == dtype && tensor.shape == shape) return;
  fail(ExitCode::bad_input, "{}: tensor {} is {} [{}], its source {} makes it {} [{}]", path_of(output, tensor),
       shown(tensor.name), name_of(tensor.dtype), fmt::join(tensor.shape, ", "), shown(slice.source->name),
       name_of(dtype), fmt::join(shape, ", "));
}

/// How often a tensor of the source that stays has to be the source of one of the output.
int times_used(const Tensor& tensor, const Claim& claim, const Manifest& manifest, const std::string& output_name) {
  if (!manifest.quantize || claim.part == Part::mtp) return 1;
  if (claim.scale) return 0;  // its weight needs none
  const std::optional<QuantizeSpec> rounding = rounding_of(*manifest.quantize, claim.part, output_name);
  if (!rounding) return 1;
  return static_cast<int>(w4_tensors(manifest.quantize->format, tensor.shape[0], tensor.shape[1], rounding->group,
                                     w4_scale_dtype(tensor.dtype))
                              .size());
}

/// Every tensor of the source that stays is the source of one tensor of the output, and of no other.
void check_complete(const OpenModel& output, const OpenModel& source, const std::vector<Slice>& slices,
                    const Manifest& manifest) {
  std::vector<char> used(source.claims.size(), 0);
  const Tensor* first = source.checkpoint.tensors().data();
  for (const Slice& slice : slices) used[static_cast<std::size_t>(slice.source - first)] += 1;
  for (std::size_t i = 0; i < used.size(); ++i) {
    const Claim& claim = source.claims[i];
    bool stays = true;
    Claim renumbered = claim;
    if (claim.part == Part::mtp) {
      stays = manifest.mtp == Mtp::keep;
    } else if (claim.expert >= 0) {
      const std::vector<std::int32_t>& keep = manifest.plan.keep[claim.layer];
      const auto place = std::lower_bound(keep.begin(), keep.end(), claim.expert);
      stays = place != keep.end() && *place == claim.expert;
      renumbered.expert = static_cast<std::int32_t>(place - keep.begin());
    }
    const std::string name = claim.part == Part::mtp ? first[i].name : tensor_name(source.model, renumbered);
    const int times = stays ? times_used(first[i], claim, manifest, name) : 0;
    if (used[i] == times) continue;
    fail(ExitCode::bad_input, "{}: tensor {} of the source is there {} times, it has to be {}",
         output.checkpoint.directory().string(), shown(first[i].name), static_cast<int>(used[i]),
         times == 0   ? std::string("left out")
         : times == 1 ? std::string("there once")
                      : fmt::format("there {} times, in 4 bits", times));
  }
}

/// Every tensor of the form of substitution, by its name.
std::unordered_map<std::string, Slice> substituted_slices(const OpenModel& source, const Manifest& manifest,
                                                          const MeanOutputs* means) {
  std::unordered_map<std::string, Slice> slices;
  for (std::size_t i = 0; i < source.claims.size(); ++i) {
    const Claim& claim = source.claims[i];
    const Tensor& tensor = source.checkpoint.tensors()[i];
    if (claim.part == Part::mtp && manifest.mtp == Mtp::drop) continue;
    const bool of_expert = claim.expert >= 0 && claim.part != Part::mtp;
    const bool gone = of_expert && !std::ranges::binary_search(manifest.plan.keep[claim.layer], claim.expert);
    if (!gone) {
      slices.emplace(tensor.name, Slice{&tensor, nullptr, std::nullopt});
    } else if (claim.part == Part::w1) {
      slices.emplace(constant_name(source.model, claim.layer, claim.expert),
                     Slice{nullptr, nullptr, std::nullopt,
                           means == nullptr ? std::span<const std::byte>() : means->of(claim.layer, claim.expert)});
    }
  }
  return slices;
}

}  // namespace

OpenModel::OpenModel(Checkpoint opened)
    : checkpoint(std::move(opened)), model(describe_model(checkpoint)), claims(claim_tensors(checkpoint, model)) {}

OpenModel::OpenModel(Checkpoint opened, Model described) : checkpoint(std::move(opened)), model(std::move(described)) {}

Manifest open_manifest(const fs::path& output, const OpenModel& source) {
  const fs::path path = output / kManifestName;
  std::error_code error;
  if (fs::is_directory(output, error) && !fs::exists(path, error)) {
    fail(ExitCode::bad_input,
         "{}: has no {}, so which experts were kept is not known; only outputs of this program can be verified",
         output.string(), kManifestName);
  }
  Manifest manifest = read_manifest(output);
  check_plan(path.string(), manifest.plan, manifest.form, source.model);
  const std::string digest = model_digest(source.checkpoint);
  if (manifest.source_digest != digest) {
    fail(ExitCode::bad_input, "{}: made from another model than {} (digest {}, this one {})", path.string(),
         source.checkpoint.directory().string(), manifest.source_digest, digest);
  }
  return manifest;
}

void verify_config(const Checkpoint& output, const OpenModel& source, const Manifest& manifest) {
  const std::string path = (output.directory() / "config.json").string();
  const std::unordered_map<std::string, Json> changed = changed_members(source, manifest);
  const Json& from = source.checkpoint.config();
  const Json& to = output.config();
  for (const auto& [key, value] : from.items()) {
    const auto change = changed.find(key);
    const Json& expected = change == changed.end() ? value : change->second;
    if (!to.contains(key)) fail(ExitCode::bad_input, "{}: {} is missing", path, shown(key));
    if (to[key] == expected) continue;
    fail(ExitCode::bad_input, "{}: {} is {}, it has to be {}", path, shown(key), brief(to[key]), brief(expected));
  }
  for (const auto& [key, value] : to.items()) {
    if (from.contains(key)) continue;
    const auto change = changed.find(key);
    if (change != changed.end() && change->second == value) continue;
    fail(ExitCode::bad_input, "{}: {} is not in the source's", path, shown(key));
  }
}

std::vector<Slice> verify_tensors(const OpenModel& output, const OpenModel& source, const Manifest& manifest) {
  std::vector<Slice> slices;
  slices.reserve(output.claims.size());
  for (std::size_t i = 0; i < output.claims.size(); ++i) {
    Claim claim = output.claims[i];
    const Tensor& tensor = output.checkpoint.tensors()[i];
    const W4Piece piece = manifest.quantize ? std::exchange(claim.piece, W4Piece::none) : W4Piece::none;
    const std::string name =
        claim.part == Part::mtp ? tensor.name : tensor_name(source.model, source_claim(claim, manifest.plan));
    const Tensor* from = source.checkpoint.find(name);
    if (from == nullptr) {
      fail(ExitCode::bad_input, "{}: tensor {} is surplus: the source has no {}", path_of(output.checkpoint, tensor),
           shown(tensor.name), shown(name));
    }
    Slice slice{from, is_sliced(claim) ? &manifest.plan.keep[claim.layer] : nullptr, std::nullopt};
    if (manifest.quantize && claim.part != Part::mtp) {
      WriteOptions options;
      options.quantize = manifest.quantize;
      slice.derived = derivation_of(options, claim.part, tensor_name(source.model, claim), from->dtype, piece);
    }
    check_shape(output.checkpoint, tensor, slice);
    slices.push_back(slice);
  }
  check_complete(output, source, slices, manifest);
  return slices;
}

std::vector<Slice> verify_substituted(const OpenModel& output, const OpenModel& source, const Manifest& manifest,
                                      const MeanOutputs* means) {
  std::unordered_map<std::string, Slice> expected = substituted_slices(source, manifest, means);
  std::vector<Slice> slices;
  for (const Tensor& tensor : output.checkpoint.tensors()) {
    const auto found = expected.extract(tensor.name);
    if (!found) {
      fail(ExitCode::bad_input, "{}: tensor {} is surplus", path_of(output.checkpoint, tensor), shown(tensor.name));
    }
    const Slice& slice = slices.emplace_back(found.mapped());
    if (slice.source != nullptr) {
      check_shape(output.checkpoint, tensor, slice);
    } else if (tensor.dtype != DType::bf16 || tensor.shape != std::vector{source.model.hidden}) {
      fail(ExitCode::bad_input, "{}: tensor {} is not BF16 [{}]", path_of(output.checkpoint, tensor),
           shown(tensor.name), source.model.hidden);
    }
  }
  if (!expected.empty()) {
    fail(ExitCode::bad_input, "{}: tensor {} is missing", output.checkpoint.directory().string(),
         shown(expected.begin()->first));
  }
  return slices;
}

void verify_manifest(const OpenModel& output, const std::vector<Slice>& slices, const Manifest& manifest) {
  const Checkpoint& checkpoint = output.checkpoint;
  const std::string path = (checkpoint.directory() / kManifestName).string();
  std::size_t at = 0;  // the tensors of the checkpoint and of the manifest are in one order: by file, then by offset
  const std::vector<Tensor>& tensors = checkpoint.tensors();
  for (std::size_t f = 0; f < manifest.files.size(); ++f) {
    const ManifestFile& file = manifest.files[f];
    if (f >= checkpoint.files().size() || file.name != checkpoint.files()[f]) {
      fail(ExitCode::bad_input, "{}: lists {}, which is not a file of the output", path, shown(file.name));
    }
    for (const ManifestTensor& entry : file.tensors) {
      const bool same = at < tensors.size() && std::cmp_equal(tensors[at].file, f) && tensors[at].name == entry.name &&
                        tensors[at].dtype == entry.dtype && tensors[at].shape == entry.shape &&
                        (slices[at].source == nullptr ? "" : slices[at].source->name) == entry.source;
      if (!same) {
        fail(ExitCode::bad_input, "{}: tensor {} of {} is not as listed", path, shown(entry.name), shown(file.name));
      }
      ++at;
    }
  }
  if (at != tensors.size()) {
    fail(ExitCode::bad_input, "{}: tensor {} of {} is not listed", path, shown(tensors[at].name),
         checkpoint.files()[tensors[at].file]);
  }
  if (const std::string digest = model_digest(checkpoint); digest != manifest.output_digest) {
    fail(ExitCode::bad_input, "{}: says that the output's digest is {}, it is {}", path, manifest.output_digest,
         digest);
  }
}

void verify_index(const Checkpoint& output) {
  const fs::path path = output.directory() / "model.safetensors.index.json";
  const Json index = parse_json(InputFile(path).read_text(kMaxIndexBytes), path.string());
  std::uint64_t bytes = 0;
  for (const Tensor& tensor : output.tensors()) bytes += tensor.bytes;
  const Json metadata = index.value("metadata", Json());
  const Json total = metadata.is_object() ? metadata.value("total_size", Json()) : Json();
  if (total != bytes) {
    fail(ExitCode::bad_input, "{}: total_size is {}, the tensors have {} bytes", path.string(), total.dump(), bytes);
  }
  std::error_code error;
  for (fs::directory_iterator entry(output.directory(), error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.ends_with(".safetensors")) continue;
    if (std::binary_search(output.files().begin(), output.files().end(), name)) continue;
    fail(ExitCode::bad_input, "{}: is surplus: the index does not know it", entry->path().string());
  }
  if (error) fail(ExitCode::io, "{}: cannot be listed: {}", output.directory().string(), error.message());
}

}  // namespace reap
