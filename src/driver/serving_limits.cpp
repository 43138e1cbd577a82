#include "driver/serving_limits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "kernels/check.hpp"
#include "shard/families.hpp"

namespace reap {
namespace {

constexpr std::array<std::int64_t, 3> kGroups{128, 64, 32};  // what Marlin kernels take
constexpr std::int64_t kMarlinHidden = 128;

/// A kind of linear layer that is rounded: its inputs, and whether tensor parallelism cuts them.
struct Kind {
  Part part;
  const char* what;
  std::int64_t outputs;
  std::int64_t inputs;
  bool cut;
};

std::vector<Kind> kinds(const Model& model, bool attention) {
  const std::int64_t query = model.attention.heads * model.attention.head_dim;
  const std::int64_t key_value = model.attention.kv_heads * model.attention.head_dim;
  std::vector<Kind> all{{Part::w1, "w1 and w3", model.expert.inner, model.hidden, false},
                        {Part::w2, "w2", model.hidden, model.expert.inner, true}};
  if (!attention) return all;
  all.push_back({Part::q, "q", query, model.hidden, false});
  all.push_back({Part::k, "k and v", key_value, model.hidden, false});
  all.push_back({Part::o, "o", model.hidden, query, true});
  return all;
}

/// Why a group does not suit; "" when it does.
std::string misfit(const Kind& kind, std::int64_t group, const Serving& serving) {
  if (kind.outputs % kNibbles != 0) {
    return fmt::format("{} has {} outputs, which are not whole words of {}", kind.what, kind.outputs, kNibbles);
  }
  if (kind.inputs % group != 0) return fmt::format("{} has {} inputs", kind.what, kind.inputs);
  if (!kind.cut || kind.inputs % (group * serving.tensor_parallel) == 0) return "";
  return fmt::format("{} has {} inputs, {:g} on each rank of tensor parallelism {}", kind.what, kind.inputs,
                     static_cast<double>(kind.inputs) / static_cast<double>(serving.tensor_parallel),
                     serving.tensor_parallel);
}

bool fits(const Model& model, bool attention, std::int64_t group, const Serving& serving) {
  const std::vector<Kind> all = kinds(model, attention);
  return std::ranges::all_of(all, [&](const Kind& kind) { return misfit(kind, group, serving).empty(); });
}

std::string name_of_layer(const Model& model, Part part, std::int64_t layer, std::int64_t expert) {
  const Claim claim{part, static_cast<std::int32_t>(layer), static_cast<std::int32_t>(expert)};
  return tensor_name(model, claim);
}

/// Engines make one matrix of q, k and v, and one of all experts of a layer.
void check_together(const QuantizeOptions& options, const Model& model, std::int64_t experts) {
  if (options.exclude.empty()) return;
  const auto check = [&](const std::vector<std::pair<Part, std::string>>& names) {
    const bool first = rounding_of(options, names.front().first, names.front().second).has_value();
    for (const auto& [part, name] : names) {
      if (rounding_of(options, part, name).has_value() == first) continue;
      fail(ExitCode::usage,
           "--exclude: takes {} but not {}, and engines take them together; choose a pattern for both or none",
           first ? layer_name(name) : layer_name(names.front().second),
           first ? layer_name(names.front().second) : layer_name(name));
    }
  };
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    std::vector<std::pair<Part, std::string>> attention, all_experts;
    for (const Part part : {Part::q, Part::k, Part::v}) {
      attention.emplace_back(part, name_of_layer(model, part, layer, -1));
    }
    check(attention);
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      for (const Part part : {Part::w1, Part::w3, Part::w2}) {
        all_experts.emplace_back(part, name_of_layer(model, part, layer, expert));
      }
    }
    check(all_experts);
  }
}

void check_used(const QuantizeOptions& options, const Model& model, std::int64_t experts) {
  for (const std::string& pattern : options.exclude) {
    bool used = false;
    for (const TensorKind& kind : tensor_kinds(model)) {
      if (!kind.may_be_fp8) continue;
      const bool of_expert = kind.part == Part::w1 || kind.part == Part::w2 || kind.part == Part::w3;
      for (std::int64_t layer = 0; layer < model.layers && !used; ++layer) {
        for (std::int64_t expert = 0; expert < (of_expert ? experts : 1) && !used; ++expert) {
          used = matches(layer_name(name_of_layer(model, kind.part, layer, of_expert ? expert : -1)), pattern);
        }
      }
    }
    if (!used) fail(ExitCode::usage, "--exclude {}: matches no layer; write for example '*.layers.0.*'", pattern);
  }
}

}  // namespace

std::optional<std::int64_t> largest_group(const Model& model, bool attention, const Serving& serving) {
  const auto* const found =
      std::ranges::find_if(kGroups, [&](std::int64_t group) { return fits(model, attention, group, serving); });
  if (found == kGroups.end()) return std::nullopt;
  return *found;
}

void check_serving(const QuantizeOptions& options, const Model& model, std::int64_t experts, const Serving& serving) {
  if (model.w4) fail(ExitCode::bad_input, "the model is in 4 bits already; quantise the one that it was made from");
  check_used(options, model, experts);
  check_together(options, model, experts);
  for (const Kind& kind : kinds(model, options.attention)) {
    const std::string why = misfit(kind, options.group, serving);
    if (why.empty()) continue;
    const std::optional<std::int64_t> other = largest_group(model, options.attention, serving);
    fail(ExitCode::bad_input, "groups of {} do not suit this model: {}; {}", options.group, why,
         other ? fmt::format("give --group-size {}", *other)
               : std::string("no group of 128, 64 or 32 does; serve it on fewer ranks, or with expert parallelism"));
  }
  if (experts % serving.expert_parallel != 0) {
    fail(ExitCode::bad_input, "--serve-ep {}: the {} experts of a layer do not divide; prune with --keep-multiple {}",
         serving.expert_parallel, experts, serving.expert_parallel);
  }
  if (model.attention.heads % serving.tensor_parallel != 0) {
    fail(ExitCode::bad_input, "--serve-tp {}: the model has {} attention heads", serving.tensor_parallel,
         model.attention.heads);
  }
}

std::vector<std::string> serving_advice(const Model& model) {
  std::vector<std::string> lines;
  if (model.hidden % kMarlinHidden != 0) {
    lines.push_back(fmt::format("a hidden size of {} is no multiple of {}: engines will not use their Marlin kernels",
                                model.hidden, kMarlinHidden));
  }
  return lines;
}

}  // namespace reap
