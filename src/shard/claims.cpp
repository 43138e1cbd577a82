#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <utility>

#include "kernels/check.hpp"
#include "shard/family.hpp"

namespace reap {
namespace {

constexpr std::size_t kMissingShown = 3;
constexpr std::size_t kMaxDigits = 9;

// The number a name's component is, in the one form that we write: no sign, no leading zero.
std::optional<std::int64_t> number_of(std::string_view component) {
  if (component.empty() || component.size() > kMaxDigits || (component[0] == '0' && component.size() > 1)) return {};
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(component.data(), component.data() + component.size(), value);
  if (error != std::errc() || end != component.data() + component.size() || component[0] == '-') return {};
  return value;
}

std::string numbered_name(std::string_view pattern, std::int64_t layer, std::int64_t expert) {
  std::string name(pattern);
  const auto put = [&](std::string_view field, std::int64_t number) {
    const std::size_t at = name.find(field);
    if (at != std::string::npos) name.replace(at, field.size(), std::to_string(number));
  };
  put("{layer}", layer);
  put("{expert}", expert);
  return name;
}

// Which of the tensors of a 4-bit weight a name is.
W4Piece piece_of(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? W4Piece::none : w4_piece_named(name.substr(dot + 1));
}

bool per_layer(const TensorRule& rule) { return rule.name.find("{layer}") != std::string_view::npos; }
bool per_expert(const TensorRule& rule) { return rule.name.find("{expert}") != std::string_view::npos; }

std::int64_t size_of(Extent extent, const Model& model) {
  switch (extent) {
    case Extent::hidden:
      return model.hidden;
    case Extent::vocab:
      return model.vocab;
    case Extent::query:
      return model.attention.heads * model.attention.head_dim;
    case Extent::key_value:
      return model.attention.kv_heads * model.attention.head_dim;
    case Extent::inner:
      return model.expert.inner;
    case Extent::experts:
      return model.router.experts;
    case Extent::none:
      break;
  }
  REAP_CHECK(false, "extent {}", static_cast<int>(extent));
}

std::vector<std::int64_t> expected_shape(const TensorRule& rule, const Model& model, bool scale) {
  std::vector<std::int64_t> shape;
  for (const Extent extent : rule.shape) {
    if (extent == Extent::none) continue;
    const std::int64_t size = size_of(extent, model);
    shape.push_back(scale ? (size + kScaleBlock - 1) / kScaleBlock : size);
  }
  return shape;
}

// Whether a name whose pattern is the rule's really has the numbers, and a scale only where one can be: "{layer}"
// itself would pass for a number otherwise.
bool fits(const ParsedName& name, const TensorRule& rule) {
  return per_layer(rule) == (name.layer >= 0) && per_expert(rule) == (name.expert >= 0) &&
         ((!name.scale && name.piece == W4Piece::none) || rule.may_be_fp8);
}

class Claimer {
 public:
  Claimer(const Checkpoint& checkpoint, const Model& model)
      : checkpoint_{checkpoint}, model_{model}, family_{*find_family(model.type)} {
    for (const TensorRule& rule : family_.tensors) rules_.emplace(rule.name, &rule);
  }

  std::vector<Claim> claim_all() {
    std::vector<Claim> claims;
    claims.reserve(checkpoint_.tensors().size());
    for (const Tensor& tensor : checkpoint_.tensors()) claims.push_back(claim(tensor));
    refuse_missing();
    return claims;
  }

 private:
  Claim claim(const Tensor& tensor) {
    const ParsedName name = parse_tensor_name(tensor.name);
    const auto found = rules_.find(name.pattern);
    const TensorRule* rule = found == rules_.end() ? nullptr : found->second;
    if (rule != nullptr && !fits(name, *rule)) rule = nullptr;
    if (name.piece != W4Piece::none && !model_.w4) rule = nullptr;
    Claim claim{Part::mtp, static_cast<std::int32_t>(name.layer), -1, name.scale, name.piece};
    if (rule != nullptr && per_expert(*rule)) claim.expert = static_cast<std::int32_t>(name.expert);
    if (name.pattern.starts_with(family_.layer_prefix) && name.layer >= model_.layers) return claim;

    if (rule == nullptr) refuse_unclaimed(tensor, name);
    if (name.expert >= model_.router.experts) {
      refuse(tensor, fmt::format("config.json says that there are {} experts", model_.router.experts));
    }
    claim.part = rule->part;
    if (name.piece != W4Piece::none) {
      check_piece(tensor, *rule, name.piece);
      if (name.piece == W4Piece::words) ++weights_;
      return claim;
    }
    check_shape(tensor, expected_shape(*rule, model_, name.scale));
    check_dtype(tensor, *rule, name.scale);
    if (!name.scale) ++weights_;
    return claim;
  }

  [[noreturn]] void refuse(const Tensor& tensor, std::string_view why) const {
    const std::string file = (checkpoint_.directory() / checkpoint_.files()[tensor.file]).string();
    fail(ExitCode::bad_input, "{}: tensor {} ({} [{}] at offset {}): {}", file, shown(tensor.name),
         name_of(tensor.dtype), fmt::join(tensor.shape, ", "), tensor.offset, why);
  }

  [[noreturn]] void refuse_unclaimed(const Tensor& tensor, const ParsedName& name) const {
    const std::string_view pattern = name.pattern;
    if (pattern.find(".experts.gate_up_proj") != std::string_view::npos || pattern.ends_with(".experts.down_proj")) {
      refuse(
          tensor,
          "all experts in one tensor is how transformers holds the model in memory; use the checkpoint as published, "
          "with one w1, w2 and w3 per expert");
    }
    if (name.piece != W4Piece::none) {
      refuse(tensor,
             "the model is quantised already, in a way that its config.json does not say or that is not supported; "
             "prune the unquantised or the FP8 model, then quantise the result");
    }
    if (!tensor.shape.empty() && tensor.shape[0] == model_.router.experts) {
      refuse(tensor,
             fmt::format("belongs to no part of a {} model, yet it has one row for each of the {} experts: it looks "
                         "like a per-expert tensor that pruning would have to slice",
                         model_.type, model_.router.experts));
    }
    refuse(tensor, fmt::format("belongs to no part of a {} model", model_.type));
  }

  /// The tensor is as its weight's layout asks; the words of a weight have the others beside them.
  void check_piece(const Tensor& tensor, const TensorRule& rule, W4Piece piece) const {
    const std::vector<std::int64_t> shape = expected_shape(rule, model_, false);
    const auto& [format, group] = *model_.w4;
    if (shape[1] % group != 0 || shape[0] % kNibbles != 0) {
      refuse(tensor, fmt::format("a weight [{}] is not whole groups of {}", fmt::join(shape, ", "), group));
    }
    const std::string stem = tensor.name.substr(0, tensor.name.rfind('.') + 1);
    bool known = piece == W4Piece::group_index && format != W4Format::compressed_tensors;  // optional
    const DType scale_dtype = tensor.dtype == DType::f16 ? DType::f16 : DType::bf16;
    for (const W4Tensor& expected : w4_tensors(format, shape[0], shape[1], group, scale_dtype)) {
      if (expected.piece == piece) {
        known = true;
        check_shape(tensor, expected.shape);
        if (tensor.dtype != expected.dtype) refuse(tensor, fmt::format("must be {}", name_of(expected.dtype)));
      } else if (piece == W4Piece::words && expected.piece != W4Piece::group_index &&
                 checkpoint_.find(stem + std::string(expected.suffix)) == nullptr) {
        refuse(tensor, fmt::format("a 4-bit weight without its {}{}", stem, expected.suffix));
      }
    }
    if (!known) refuse(tensor, fmt::format("is no tensor of a weight in the {} format", name_of(format)));
    if (checkpoint_.find(stem + std::string(kWeightSuffix)) != nullptr) {
      refuse(tensor, fmt::format("stands beside {}{}, which it takes the place of", stem, kWeightSuffix));
    }
  }

  void check_shape(const Tensor& tensor, const std::vector<std::int64_t>& shape) const {
    if (tensor.shape != shape)
      refuse(tensor, fmt::format("its shape must be [{}], says config.json", fmt::join(shape, ", ")));
  }

  void check_dtype(const Tensor& tensor, const TensorRule& rule, bool scale) const {
    if (scale) {
      const Tensor* weight = checkpoint_.find(tensor.name.substr(0, tensor.name.size() - kScaleSuffix.size()));
      if (tensor.dtype != DType::f32) refuse(tensor, "the scales of an FP8 weight must be F32");
      if (weight == nullptr || weight->dtype != DType::f8_e4m3) refuse(tensor, "scales without an F8_E4M3 weight");
      return;
    }
    if (tensor.dtype == DType::f8_e4m3 && rule.may_be_fp8) {
      if (checkpoint_.find(tensor.name + std::string(kScaleSuffix)) == nullptr) {
        refuse(tensor, fmt::format("an FP8 weight without its {}{}", tensor.name, kScaleSuffix));
      }
      return;
    }
    if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16) {
      refuse(tensor, rule.may_be_fp8 ? "must be BF16, F16, F32 or F8_E4M3" : "must be BF16, F16 or F32");
    }
  }

  // Claimed names are all different and all expected, so counting tells whether any is missing.
  void refuse_missing() const {
    std::int64_t expected = 0;
    for (const TensorRule& rule : family_.tensors) expected += layers_of(rule) * experts_of(rule);
    if (weights_ == expected) return;
    std::vector<std::string> missing;
    for (const TensorRule& rule : family_.tensors) {
      for (std::int64_t i = 0; i < layers_of(rule) * experts_of(rule) && missing.size() < kMissingShown; ++i) {
        std::string name = numbered_name(rule.name, i / experts_of(rule), i % experts_of(rule));
        if (!is_there(rule, name)) missing.push_back(std::move(name));
      }
    }
    fail(ExitCode::bad_input, "{}: {} tensors of the model that config.json describes are missing: {}{}",
         checkpoint_.directory().string(), expected - weights_, fmt::join(missing, ", "),
         expected - weights_ > static_cast<std::int64_t>(missing.size()) ? ", ..." : "");
  }

  bool is_there(const TensorRule& rule, const std::string& name) const {
    if (checkpoint_.find(name) != nullptr) return true;
    return model_.w4 && rule.may_be_fp8 &&
           checkpoint_.find(w4_name(name, model_.w4->format, W4Piece::words)) != nullptr;
  }

  std::int64_t layers_of(const TensorRule& rule) const { return per_layer(rule) ? model_.layers : 1; }
  std::int64_t experts_of(const TensorRule& rule) const { return per_expert(rule) ? model_.router.experts : 1; }

  const Checkpoint& checkpoint_;
  const Model& model_;
  const Family& family_;
  std::unordered_map<std::string_view, const TensorRule*> rules_;
  std::int64_t weights_ = 0;  // tensors claimed, scales and MTP not counted
};

}  // namespace

ParsedName parse_tensor_name(std::string_view name) {
  ParsedName parsed;
  if (name.ends_with(kScaleSuffix)) {
    parsed.scale = true;
    name.remove_suffix(kScaleSuffix.size());
  }
  parsed.piece = piece_of(name);
  parsed.pattern.reserve(name.size() + 16);
  for (bool more = true; more;) {
    const std::size_t dot = name.find('.');
    const std::string_view component = name.substr(0, dot);
    const std::optional<std::int64_t> number = parsed.expert < 0 ? number_of(component) : std::nullopt;
    if (!number) {
      parsed.pattern += component;
    } else if (parsed.layer < 0) {
      parsed.layer = *number;
      parsed.pattern += "{layer}";
    } else {
      parsed.expert = *number;
      parsed.pattern += "{expert}";
    }
    more = dot != std::string_view::npos;
    if (more) {
      parsed.pattern += '.';
      name.remove_prefix(dot + 1);
    }
  }
  if (parsed.piece != W4Piece::none) {
    parsed.pattern.resize(parsed.pattern.rfind('.') + 1);
    parsed.pattern += kWeightSuffix;
  }
  return parsed;
}

std::vector<TensorKind> tensor_kinds(const Model& model) {
  std::vector<TensorKind> kinds;
  for (const TensorRule& rule : find_family(model.type)->tensors) {
    const std::int64_t count = (per_layer(rule) ? model.layers : 1) * (per_expert(rule) ? model.router.experts : 1);
    kinds.push_back({rule.part, expected_shape(rule, model, false), count, rule.may_be_fp8});
  }
  return kinds;
}

std::vector<Claim> claim_tensors(const Checkpoint& checkpoint, const Model& model) {
  return Claimer(checkpoint, model).claim_all();
}

std::string tensor_name(const Model& model, const Claim& claim) {
  const auto& rules = find_family(model.type)->tensors;
  const auto rule = std::find_if(rules.begin(), rules.end(),
                                 [&](const TensorRule& candidate) { return candidate.part == claim.part; });
  REAP_CHECK(rule != rules.end(), "no tensor name for part {}", static_cast<int>(claim.part));
  const std::string name = numbered_name(rule->name, claim.layer, claim.expert);
  if (claim.piece != W4Piece::none) return w4_name(name, model.w4->format, claim.piece);
  return name + std::string(claim.scale ? kScaleSuffix : "");
}

}  // namespace reap
