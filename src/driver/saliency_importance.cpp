#include "driver/saliency_importance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <system_error>
#include <utility>

#include "driver/digest.hpp"
#include "driver/input_tables.hpp"
#include "driver/manifest.hpp"
#include "driver/moment_tables.hpp"
#include "driver/saliency_tables.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

/// Of parts whose weights are rounded.
std::optional<InputKind> input_of(Part part) {
  switch (part) {
    case Part::q:
    case Part::k:
    case Part::v:
      return InputKind::attention;
    case Part::o:
      return InputKind::output;
    case Part::w1:
    case Part::w3:
      return InputKind::experts;
    case Part::w2:
      return InputKind::inner;
    default:
      return std::nullopt;
  }
}

/// Which experts of the model that was observed are left of it.
std::vector<std::vector<std::int32_t>> survivors(const Manifest& manifest, const Source& source,
                                                 std::int64_t observed) {
  const bool fits = std::ranges::all_of(manifest.plan.keep, [&](const std::vector<std::int32_t>& layer) {
    return std::cmp_equal(layer.size(), source.model.router.experts) &&
           std::ranges::all_of(layer, [&](std::int32_t expert) { return expert >= 0 && expert < observed; });
  });
  if (fits && std::cmp_equal(manifest.plan.keep.size(), source.model.layers)) return manifest.plan.keep;
  fail(ExitCode::bad_input, "{}: the experts that its {} says were kept are not those of the model",
       source.checkpoint.directory().string(), kManifestName);
}

/// The manifest of a checkpoint that was pruned from the model of this digest.
Manifest pruned_from(const std::string& file, const std::string& model_digest, const Source& source) {
  const std::filesystem::path& directory = source.checkpoint.directory();
  std::error_code error;
  if (!std::filesystem::exists(directory / kManifestName, error)) {
    fail(ExitCode::bad_input, "{}: is of another model than {} (digest {}, this one {}), which has no {}", file,
         directory.string(), model_digest, source.digest, kManifestName);
  }
  Manifest manifest = read_manifest(directory);
  if (manifest.output_digest != source.digest) {
    fail(ExitCode::bad_input, "{}: its {} is of another model (digest {}, this one {})", directory.string(),
         kManifestName, manifest.output_digest, source.digest);
  }
  if (manifest.source_digest == model_digest) return manifest;
  fail(ExitCode::bad_input, "{}: is of another model (digest {}) than {} ({}) and than what that was made from ({})",
       file, model_digest, directory.string(), source.digest, manifest.source_digest);
}

}  // namespace

SaliencyImportance::SaliencyImportance(const std::filesystem::path& file, const Source& source,
                                       std::int64_t least_tokens)
    : reader_{file}, digest_{sha256_of_file(file)}, least_tokens_{least_tokens} {
  const SaliencyInfo info = read_saliency_info(reader_);
  collected_ = info.collected;
  if (!collected_.imatrix && !collected_.moments) {
    fail(ExitCode::bad_input, "{}: holds no squares of inputs; observe with --collect imatrix", reader_.file());
  }
  read_counts(info);
  map_experts(info, source);
  find_places(source);
}

void SaliencyImportance::read_counts(const SaliencyInfo& info) {
  const Extents extents = reader_.extents<std::int64_t>(kCountPath, 3);
  const auto by_group = reader_.read<std::int64_t>(kCountPath, extents);
  layers_ = extents[1];
  experts_ = extents[2];
  counts_.resize(static_cast<std::size_t>(layers_ * experts_));
  for (std::size_t i = 0; i < by_group.size(); ++i) {
    if (by_group[i] < 0 || by_group[i] > info.tokens) {
      fail(ExitCode::bad_input, "{}: {}: entry {} is {}, of {} tokens", reader_.file(), kCountPath, i, by_group[i],
           info.tokens);
    }
    counts_[i % counts_.size()] += by_group[i];
  }
}

void SaliencyImportance::map_experts(const SaliencyInfo& info, const Source& source) {
  const Model& model = source.model;
  routing_ = info.plan_digest;
  if (info.model_digest != source.digest) {
    const Manifest manifest = pruned_from(reader_.file(), info.model_digest, source);
    experts_of_ = survivors(manifest, source, experts_);
    made_by_ = manifest.plan.sha256;
  } else if (model.router.experts == experts_) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(experts_));
    std::iota(all.begin(), all.end(), 0);
    experts_of_.assign(static_cast<std::size_t>(layers_), all);
  }
  if (layers_ == model.layers && !experts_of_.empty()) return;
  fail(ExitCode::bad_input, "{}: has {} layers of {} experts, the model {} of {}", reader_.file(), layers_, experts_,
       model.layers, model.router.experts);
}

void SaliencyImportance::find_places(const Source& source) {
  for (std::size_t i = 0; i < source.claims.size(); ++i) {
    const Claim& claim = source.claims[i];
    const std::optional<InputKind> kind = input_of(claim.part);
    if (!kind || claim.scale || claim.piece != W4Piece::none) continue;
    const std::int32_t expert =
        claim.expert < 0 ? -1
                         : experts_of_[static_cast<std::size_t>(claim.layer)][static_cast<std::size_t>(claim.expert)];
    places_.emplace(source.checkpoint.tensors()[i].name, Place{*kind, claim.layer, expert});
  }
}

std::int64_t SaliencyImportance::count(std::int64_t layer, std::int32_t expert) const {
  return counts_[static_cast<std::size_t>(layer * experts_ + expert)];
}

std::optional<std::vector<float>> SaliencyImportance::of(std::string_view weight, std::int64_t inputs) const {
  const auto found = places_.find(std::string(weight));
  if (found == places_.end() || !collected_.imatrix) return std::nullopt;
  const Place& place = found->second;
  if (place.expert >= 0 && count(place.layer, place.expert) < least_tokens_) return std::nullopt;
  std::vector<std::int64_t> row;
  {
    const std::lock_guard lock(mutex_);
    row = read_input_row(reader_, place.kind, {layers_, experts_, inputs}, place.layer, place.expert);
  }
  std::vector<float> sums(static_cast<std::size_t>(inputs));
  for (std::int64_t i = 0; i < inputs; ++i) sums[static_cast<std::size_t>(i)] = static_cast<float>(square_sum(row, i));
  return sums;
}

void SaliencyImportance::check_plan(const Plan& plan) const {
  if (routing_.empty()) return;
  const std::string pruned_by = made_by_.empty() ? sha256_of(plan_text(plan)) : made_by_;
  if (pruned_by == routing_) return;
  fail(ExitCode::bad_input, "{}: is of what another plan left (SHA-256 {}, this one {})", reader_.file(), routing_,
       pruned_by);
}

std::shared_ptr<const Feedback> SaliencyImportance::feedback(std::string_view weight, std::int64_t inputs) const {
  const auto found = places_.find(std::string(weight));
  if (found == places_.end() || !collected_.moments || found->second.kind == InputKind::inner) return nullptr;
  const Place& place = found->second;
  return feedbacks_.get(place.kind, place.layer, [&] {
    std::vector<std::int64_t> moments;
    {
      const std::lock_guard lock(mutex_);
      moments = read_moments(reader_, place.kind, layers_, inputs, place.layer);
    }
    return feedback_of(moments, inputs);
  });
}

std::vector<std::int32_t> SaliencyImportance::starved(std::int64_t layer) const {
  if (!collected_.imatrix) return {};  // nobody's inputs count more than others
  const std::vector<std::int32_t>& experts = experts_of_[static_cast<std::size_t>(layer)];
  std::vector<std::int32_t> found;
  for (std::size_t expert = 0; expert < experts.size(); ++expert) {
    if (count(layer, experts[expert]) < least_tokens_) found.push_back(static_cast<std::int32_t>(expert));
  }
  return found;
}

}  // namespace reap
