#include "driver/output_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "driver/quantize_config.hpp"
#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

void check_plan(const Plan& plan, const Model& model, Form form) {
  check_counts_of(plan.request, form);
  if (std::cmp_not_equal(plan.layers.size(), model.layers) || plan.experts != model.router.experts) {
    fail(ExitCode::bad_input, "the plan is for {} layers of {} experts, the model has {} of {}", plan.layers.size(),
         plan.experts, model.layers, model.router.experts);
  }
  if (plan.kept < model.router.top_k || plan.kept > plan.experts) {
    fail(ExitCode::bad_input, "the plan keeps {} experts per layer; a token needs {} and there are {}", plan.kept,
         model.router.top_k, plan.experts);
  }
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const std::vector<std::int32_t>& keep = plan.layers[layer].keep;
    const bool ascending = std::adjacent_find(keep.begin(), keep.end(), std::greater_equal<>()) == keep.end();
    const bool counts = form == Form::substitution || std::cmp_equal(keep.size(), plan.kept);
    if (!counts || keep.empty() || !ascending || keep.front() < 0 || keep.back() >= plan.experts) {
      fail(ExitCode::bad_input, "the plan's experts of layer {} are not {} ascending numbers below {}", layer,
           plan.kept, plan.experts);
    }
  }
}

/// The number of each source expert in the output, [layer][expert]; -1 for those that go.
std::vector<std::vector<std::int32_t>> renumber(const Plan& plan) {
  std::vector<std::vector<std::int32_t>> numbers;
  numbers.reserve(plan.layers.size());
  for (const LayerPlan& layer : plan.layers) {
    std::vector<std::int32_t>& number = numbers.emplace_back(plan.experts, -1);
    for (std::size_t i = 0; i < layer.keep.size(); ++i) number[layer.keep[i]] = static_cast<std::int32_t>(i);
  }
  return numbers;
}

/// The whole of a source tensor, under the same name.
OutputTensor whole(const Tensor& tensor, std::size_t index) {
  return {tensor, static_cast<std::int64_t>(index), {}, std::nullopt};
}

bool is_derived(const WriteOptions& options, Part part, const TensorInfo& weight) {
  return derivation_of(options, part, weight.name, weight.dtype, W4Piece::words).has_value();
}

void check_quantizable(const Model& model, std::int64_t experts, const WriteOptions& options) {
  check_serving(*options.quantize, model, experts, options.serving);
  if (model.fp8 && model.mtp_layers > 0 && options.mtp == Mtp::keep) {
    fail(ExitCode::usage, "--mtp keep: MTP tensors in FP8 cannot stand beside weights of 4 bits; give --mtp drop");
  }
}

std::uint64_t bytes_of(DType dtype, const std::vector<std::int64_t>& shape) {
  std::uint64_t bytes = size_of(dtype);
  for (const std::int64_t extent : shape) bytes *= static_cast<std::uint64_t>(extent);
  return bytes;
}

/// The tensors that a weight becomes; `weight` is what copying it would make.
std::vector<OutputTensor> derived(const OutputTensor& weight, const Claim& claim, const WriteOptions& options) {
  const TensorInfo& info = weight.info;
  const auto make = [&](W4Piece piece, std::string name, DType dtype, std::vector<std::int64_t> shape) {
    OutputTensor tensor = weight;
    tensor.derived = derivation_of(options, claim.part, info.name, info.dtype, piece);
    tensor.info.bytes = bytes_of(dtype, shape);
    tensor.info.name = std::move(name);
    tensor.info.dtype = dtype;
    tensor.info.shape = std::move(shape);
    return tensor;
  };
  const std::optional<QuantizeSpec> rounding = rounding_of(*options.quantize, claim.part, info.name);
  if (!rounding) return {make(W4Piece::none, info.name, DType::bf16, info.shape)};
  const W4Format format = options.quantize->format;
  std::vector<OutputTensor> tensors;
  for (W4Tensor& part : w4_tensors(format, info.shape[0], info.shape[1], rounding->group, w4_scale_dtype(info.dtype))) {
    tensors.push_back(make(part.piece, w4_name(info.name, format, part.piece), part.dtype, std::move(part.shape)));
  }
  return tensors;
}

/// The rows of the experts that stay.
OutputTensor sliced(const Tensor& tensor, std::size_t index, const std::vector<std::int32_t>& keep,
                    std::int64_t experts) {
  OutputTensor result = whole(tensor, index);
  if (std::cmp_equal(keep.size(), experts)) return result;
  result.rows = keep;
  result.info.shape[0] = static_cast<std::int64_t>(keep.size());
  result.info.bytes = tensor.bytes / static_cast<std::uint64_t>(experts) * keep.size();
  return result;
}

/// Fills files one after the other, each with at most `max_bytes` of data unless a single tensor is larger.
class Packer {
 public:
  explicit Packer(std::int64_t max_bytes) : max_bytes_{static_cast<std::uint64_t>(max_bytes)} {}

  void add(OutputTensor tensor) { add(std::vector<OutputTensor>{std::move(tensor)}); }

  /// Tensors that stay together.
  void add(std::vector<OutputTensor> tensors) {
    std::uint64_t bytes = 0;
    for (const OutputTensor& tensor : tensors) bytes += tensor.info.bytes;
    const bool fits = data_bytes_ + bytes <= max_bytes_;
    if (files_.empty() || (!fits && !files_.back().tensors.empty())) {
      files_.emplace_back();
      data_bytes_ = 0;
    }
    data_bytes_ += bytes;
    for (OutputTensor& tensor : tensors) files_.back().tensors.push_back(std::move(tensor));
  }

  std::vector<OutputFile> finish() && {
    for (std::size_t i = 0; i < files_.size(); ++i) {
      files_[i].name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files_.size());
      lay_out(files_[i]);
    }
    return std::move(files_);
  }

 private:
  /// Bytes that a tensor is aligned to; those of a rounded weight like the first of them.
  static std::size_t alignment(const OutputTensor& tensor) {
    if (!tensor.derived || tensor.derived->piece == W4Piece::none) return size_of(tensor.info.dtype);
    return size_of(tensor.derived->format == W4Format::compressed_tensors ? DType::i64 : DType::i32);
  }

  static void lay_out(OutputFile& file) {
    std::stable_sort(file.tensors.begin(), file.tensors.end(),
                     [](const OutputTensor& a, const OutputTensor& b) { return alignment(a) > alignment(b); });
    file.bytes = header_text(file).size();
    for (OutputTensor& tensor : file.tensors) {
      tensor.info.offset = file.bytes;
      file.bytes += tensor.info.bytes;
    }
  }

  std::uint64_t max_bytes_;
  std::uint64_t data_bytes_ = 0;
  std::vector<OutputFile> files_;
};

OutputTensor constant(const Model& model, const Claim& claim, const MeanOutputs& means) {
  const std::span<const std::byte> value = means.of(claim.layer, claim.expert);
  TensorInfo info{};
  info.name = constant_name(model, claim.layer, claim.expert);
  info.dtype = DType::bf16;
  info.shape = {model.hidden};
  info.bytes = value.size();
  return {std::move(info), -1, {}, std::nullopt, value};
}

/// Constants in the place of dropped experts; all else as it is.
std::vector<OutputFile> plan_substituted(const Checkpoint& source, const Model& model, const std::vector<Claim>& claims,
                                         const Plan& plan, const WriteOptions& options) {
  if (model.fp8) fail(ExitCode::usage, "--form substitution: the model is FP8, constants are there for BF16 only");
  REAP_CHECK(options.means != nullptr && options.means->experts == plan.experts, "no means for the constants");
  if (options.means->hidden != model.hidden) {
    fail(ExitCode::bad_input, "the experts' outputs are {} wide, the model is {}", options.means->hidden, model.hidden);
  }
  Packer packer(options.max_shard_bytes);
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const Claim& claim = claims[i];
    if (claim.part == Part::mtp && options.mtp == Mtp::drop) continue;
    const bool of_expert = claim.expert >= 0 && claim.part != Part::mtp;
    if (!of_expert || std::ranges::binary_search(plan.layers[claim.layer].keep, claim.expert)) {
      packer.add(whole(source.tensors()[i], i));
    } else if (claim.part == Part::w1) {
      packer.add(constant(model, claim, *options.means));
    }
  }
  return std::move(packer).finish();
}

}  // namespace

std::string_view name_of(Form form) { return form == Form::ordinary ? "ordinary" : "substitution"; }

std::string constant_name(const Model& model, std::int32_t layer, std::int32_t expert) {
  constexpr std::string_view kWeight = "w1.weight";
  std::string name = tensor_name(model, {Part::w1, layer, expert});
  REAP_CHECK(name.ends_with(kWeight), "an expert's tensor {}", name);
  return name.replace(name.size() - kWeight.size(), kWeight.size(), "approx_value");
}

std::string substituted_json(const std::vector<std::vector<std::int32_t>>& keep, std::int64_t experts) {
  std::string text;
  for (std::size_t layer = 0; layer < keep.size(); ++layer) {
    std::vector<std::int32_t> gone;
    for (std::int32_t expert = 0; expert < experts; ++expert) {
      if (!std::ranges::binary_search(keep[layer], expert)) gone.push_back(expert);
    }
    if (!gone.empty()) text += fmt::format("{}\"{}\": [{}]", text.empty() ? "" : ", ", layer, fmt::join(gone, ", "));
  }
  return "{" + text + "}";
}

void check_counts_of(const PlanRequest& request, Form form) {
  if (request.allocation == Allocation::layer || form == Form::substitution) return;
  fail(ExitCode::usage,
       "--allocation global leaves unequal numbers of experts, but a config.json holds one num_local_experts for all "
       "layers; eval takes such plans, and so does prune --form substitution");
}

std::vector<OutputFile> plan_output(const Checkpoint& source, const Model& model, const std::vector<Claim>& claims,
                                    const Plan& plan, const WriteOptions& options) {
  check_plan(plan, model, options.form);
  REAP_CHECK(claims.size() == source.tensors().size(), "{} claims for {} tensors", claims.size(),
             source.tensors().size());
  if (options.max_shard_bytes < 1)
    fail(ExitCode::usage, "--max-shard-size is {}: it has to be at least 1", options.max_shard_bytes);
  if (options.form == Form::substitution && options.quantize) {
    fail(ExitCode::usage, "--form substitution: models with constants are there for measuring, not in 4 bits");
  }
  if (options.form == Form::substitution) return plan_substituted(source, model, claims, plan, options);
  if (options.quantize) check_quantizable(model, plan.kept, options);
  const std::vector<std::vector<std::int32_t>> numbers = renumber(plan);
  Packer packer(options.max_shard_bytes);
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const Tensor& tensor = source.tensors()[i];
    Claim claim = claims[i];
    if (claim.part == Part::mtp) {
      if (options.mtp == Mtp::keep) packer.add(whole(tensor, i));
    } else if (claim.scale && options.quantize) {
      continue;  // its weight becomes another that needs none
    } else if (claim.part == Part::gate || claim.part == Part::gate_bias) {
      REAP_CHECK(!claim.scale, "tensor {}: the rows of a scaled router cannot be sliced", tensor.name);
      packer.add(sliced(tensor, i, plan.layers[claim.layer].keep, plan.experts));
    } else if (claim.expert >= 0) {
      claim.expert = numbers[claim.layer][claim.expert];
      if (claim.expert < 0) continue;
      OutputTensor expert = whole(tensor, i);
      expert.info.name = tensor_name(model, claim);
      packer.add(is_derived(options, claim.part, expert.info) ? derived(expert, claim, options)
                                                              : std::vector{std::move(expert)});
    } else {
      OutputTensor same = whole(tensor, i);
      packer.add(is_derived(options, claim.part, same.info) ? derived(same, claim, options)
                                                            : std::vector{std::move(same)});
    }
  }
  return std::move(packer).finish();
}

std::optional<Derivation> derivation_of(const WriteOptions& options, Part part, std::string_view name, DType source,
                                        W4Piece piece) {
  if (!options.quantize) return std::nullopt;
  const std::optional<QuantizeSpec> rounding = rounding_of(*options.quantize, part, name);
  if (rounding) return Derivation{piece, *rounding, options.quantize->format};
  if (source == DType::f8_e4m3) return Derivation{};
  return std::nullopt;
}

DType w4_scale_dtype(DType source) { return source == DType::f16 || source == DType::f32 ? DType::f16 : DType::bf16; }

std::string header_text(const OutputFile& file) {
  std::vector<TensorInfo> tensors;
  tensors.reserve(file.tensors.size());
  for (const OutputTensor& tensor : file.tensors) tensors.push_back(tensor.info);
  return safetensors_header_text(tensors);
}

std::string pruned_config(const Checkpoint& source, const Model& model, const Plan& plan, const WriteOptions& options) {
  std::string text = source.config_text();
  if (options.form == Form::substitution) {
    std::vector<std::vector<std::int32_t>> keep;
    for (const LayerPlan& layer : plan.layers) keep.push_back(layer.keep);
    text = with_member(text, kSubstituted, substituted_json(keep, plan.experts));
  } else if (plan.kept != model.router.experts) {
    text = with_member(text, "num_local_experts", fmt::to_string(plan.kept));
  }
  if (model.mtp_layers > 0 && options.mtp == Mtp::drop) {
    text = with_member(text, "num_mtp_modules", "0");
    text = with_member(text, "use_mtp", "false");
  }
  if (options.quantize) {
    text =
        with_member(text, "quantization_config", member_text(quantization_config(*options.quantize, model, plan.kept)));
  }
  return text;
}

std::string index_text(const std::vector<OutputFile>& files) {
  std::uint64_t total_size = 0;
  std::map<std::string_view, std::string_view> by_name;
  for (const OutputFile& file : files) {
    for (const OutputTensor& tensor : file.tensors) {
      total_size += tensor.info.bytes;
      by_name.emplace(tensor.info.name, file.name);
    }
  }
  Json::object_t weight_map;
  weight_map.reserve(by_name.size());
  // Appended as they come: ordered_json's own insertion would look for each key among all before it.
  for (const auto& [name, file] : by_name) weight_map.emplace_back(std::string(name), std::string(file));
  Json index;
  index["metadata"]["total_size"] = total_size;
  index["weight_map"] = std::move(weight_map);
  return index.dump(2) + "\n";
}

}  // namespace reap
