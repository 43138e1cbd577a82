#include "shard/moment_tally.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "shard/input_tally.hpp"

namespace reap {
namespace {

constexpr int kHalfBits = 32;
constexpr std::int64_t kHalf = std::int64_t{1} << kHalfBits;

/// Adds the values of all ranks on rank 0, in halves: together they may leave the range of an integer.
/// @throws Error(numerics) there when they do leave that of moments
void all_sum(const Comm& world, std::vector<std::int64_t>& values, InputKind kind, std::int64_t layer) {
  std::vector<std::int64_t> low(values.size());
  std::ranges::transform(values, low.begin(), [](std::int64_t value) { return value & (kHalf - 1); });
  for (std::int64_t& value : values) value >>= kHalfBits;
  world.all_sum_at(0, low);
  world.all_sum_at(0, values);
  if (world.rank() != 0) return;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::int64_t high = values[i] + (low[i] >> kHalfBits);
    // What is out of range stays so, and is found below.
    values[i] = std::clamp(high, -kMomentEnd / kHalf, kMomentEnd / kHalf) * kHalf + (low[i] & (kHalf - 1));
  }
  check_moment_range({0, values}, kind, 1, layer);
}

}  // namespace

MomentTally::MomentTally(const Model& model, const Range& layers, bool collected, Backend& backend)
    : backend_{backend},
      layers_{layers},
      model_layers_{model.layers},
      bad_{backend.memory(), collected ? layers.size() : 0} {
  if (!collected) return;
  backend.zero(bad_.data(), static_cast<std::size_t>(bad_.bytes()));
  for (const InputKind kind : kMomentKinds) {
    const std::int64_t width = width_of(kind, model);
    Part& part = parts_.emplace_back(Part{width, {backend.memory(), layers_.size() * moment_count(width)}});
    backend.zero(part.sums.data(), static_cast<std::size_t>(part.sums.bytes()));
  }
}

InputSums::Moments MomentTally::at(std::int64_t layer) {
  if (parts_.empty()) return {};
  const std::int64_t own = layer - layers_.begin;
  const auto sums = [&](InputKind kind) {
    return MomentSums{part(kind).sums.data() + own * moment_count(part(kind).width), bad_.data() + own};
  };
  return {sums(InputKind::attention), sums(InputKind::output), sums(InputKind::experts)};
}

void MomentTally::check() const {
  if (parts_.empty()) return;
  std::vector<std::int64_t> bad(static_cast<std::size_t>(bad_.size()));
  backend_.download(bad.data(), bad_.data(), static_cast<std::size_t>(bad_.bytes()));
  backend_.synchronize();
  const auto found = std::ranges::find_if(bad, [](std::int64_t flag) { return flag != 0; });
  if (found == bad.end()) return;
  fail(ExitCode::numerics,
       "layer {}: an input of a linear layer is not finite, or a sum of its squares is beyond 2^41; look for broken "
       "weights in this layer or before, or collect no moments (--collect)",
       layers_.begin + (found - bad.begin()));
}

/// A layer of a table, as all ranks would have it; what is not this rank's is 0.
std::vector<std::int64_t> MomentTally::download(InputKind kind, std::int64_t layer) const {
  const std::int64_t size = moment_count(part(kind).width);
  std::vector<std::int64_t> sums(static_cast<std::size_t>(size));
  if (layers_.holds(layer)) {
    backend_.download(sums.data(), part(kind).sums.data() + (layer - layers_.begin) * size,
                      sums.size() * sizeof(std::int64_t));
    backend_.synchronize();
  }
  return sums;
}

InputMoments MomentTally::all_sum(const Comm& world, const InputMoments& base) const {
  check();
  InputMoments total;
  if (parts_.empty()) return total;
  for (const InputKind kind : kMomentKinds) {
    InputMoments::Table& all = total.at(kind);
    for (std::int64_t layer = 0; layer < model_layers_; ++layer) {
      std::vector<std::int64_t> sums = download(kind, layer);
      const std::vector<std::int64_t>& before = base.at(kind).sums;
      if (world.rank() == 0 && !before.empty()) {
        REAP_CHECK(before.size() == sums.size() * static_cast<std::size_t>(model_layers_), "a base of {} moments",
                   before.size());
        // Each is below 2^61.
        std::ranges::transform(sums, std::span(before).subspan(static_cast<std::size_t>(layer) * sums.size()),
                               sums.begin(), std::plus<>());
      }
      reap::all_sum(world, sums, kind, layer);
      if (world.rank() != 0) continue;
      all.width = part(kind).width;
      all.sums.insert(all.sums.end(), sums.begin(), sums.end());
    }
  }
  return total;
}

}  // namespace reap
