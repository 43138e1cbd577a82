#include "shard/tally.hpp"

#include <algorithm>
#include <optional>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::int64_t kRowsPerCarry = std::int64_t{1} << 30;  // a digit holds twice as many

template <class T>
std::size_t bytes_of(std::int64_t count) {
  return static_cast<std::size_t>(count) * sizeof(T);
}

}  // namespace

Tally::Tally(const Model& model, const Range& layers, std::int64_t groups, Backend& backend)
    : backend_{backend},
      layers_{layers},
      model_layers_{model.layers},
      groups_{groups},
      experts_{model.router.experts},
      top_k_{model.router.top_k},
      sums_{backend.memory(), layers.size() * groups * experts_ * kSumsPerExpert},
      max_abs_{backend.memory(), layers.size() * groups * experts_},
      watch_{backend, top_k_},
      tokens_(static_cast<std::size_t>(layers.size() * groups)),
      carried_(static_cast<std::size_t>(layers.size())) {
  backend.zero(sums_.data(), static_cast<std::size_t>(sums_.bytes()));
  backend.zero(max_abs_.data(), static_cast<std::size_t>(max_abs_.bytes()));
}

void Tally::add(std::int64_t layer, const BlockRows& block, const LayerTrace& trace) {
  const std::int64_t first = cell(layer, 0);
  std::int64_t& carried = carried_[static_cast<std::size_t>(layer - layers_.begin)];
  if (carried + block.rows() > kRowsPerCarry) carry(layer);
  carried += block.rows();
  for (const std::int32_t group : block.host_group()) ++tokens(layer, group);
  backend_.accumulate(trace.expert, trace.gate_value, trace.norm, trace.max_abs, trace.position, block.group(),
                      block.rows(), top_k_, experts_, sums_.data() + first * kSumsPerExpert, max_abs_.data() + first,
                      watch_.bad_slot());
  watch_.added(layer, block, trace);
  if (layer + 1 == layers_.end || watch_.long_unseen()) look();
}

void Tally::look() {
  const std::optional<SlotWatch::Found> found = watch_.look();
  if (!found) return;
  fail(ExitCode::numerics,
       "layer {}, expert {}, sample {} (domain {}, half {}), token {} of it: gate value {} or norm {} is not finite or "
       "out of range; look for broken weights in this layer or before, or leave the sample out",
       found->layer, found->slot.expert, found->sample, found->group / 2, found->group % 2, found->token,
       found->slot.gate_value, found->slot.norm);
}

/// Brings the digits of a layer to canonical form.
void Tally::carry(std::int64_t layer) {
  std::vector<std::int64_t> sums(static_cast<std::size_t>(groups_ * experts_ * kSumsPerExpert));
  std::int64_t* const at = sums_.data() + cell(layer, 0) * kSumsPerExpert;
  backend_.download(sums.data(), at, bytes_of<std::int64_t>(groups_ * experts_ * kSumsPerExpert));
  backend_.synchronize();
  normalise_sums(sums, layer);
  backend_.upload(at, sums.data(), sums.size() * sizeof(std::int64_t));
  carried_[static_cast<std::size_t>(layer - layers_.begin)] = 0;
}

/// That nothing was lost: every token has its slots.
void Tally::check_counts(const Saliency& own) const {
  for (std::int64_t layer = layers_.begin; layer < layers_.end; ++layer) {
    for (std::int64_t group = 0; group < groups_; ++group) {
      std::int64_t slots = 0;
      for (std::int64_t expert = 0; expert < experts_; ++expert) slots += own.count(group, layer, expert);
      REAP_CHECK(slots == top_k_ * tokens(layer, group),
                 "layer {}, group {}: counts add up to {}, expected top_k {} x {} tokens", layer, group, slots, top_k_,
                 tokens(layer, group));
    }
  }
}

Saliency Tally::all_sum(Summation& summation, const Saliency& base) {
  look();
  Saliency total(groups_, model_layers_, experts_);
  for (std::int64_t layer = layers_.begin; layer < layers_.end; ++layer) {
    for (std::int64_t group = 0; group < groups_; ++group) {
      const std::int64_t from = cell(layer, group);
      const std::int64_t to = total.index(group, layer, 0);
      backend_.download(total.sums.data() + to * kSumsPerExpert, sums_.data() + from * kSumsPerExpert,
                        bytes_of<std::int64_t>(experts_ * kSumsPerExpert));
      backend_.download(total.max_abs.data() + to, max_abs_.data() + from, bytes_of<float>(experts_));
    }
  }
  backend_.synchronize();
  check_counts(total);
  total.normalise();  // so that the digits of all ranks have room in one
  if (summation.world().rank() == 0 && !base.sums.empty()) {
    REAP_CHECK(base.sums.size() == total.sums.size(), "a base of {} sums, not {}", base.sums.size(), total.sums.size());
    for (std::size_t i = 0; i < total.sums.size(); ++i) total.sums[i] += base.sums[i];
    for (std::size_t i = 0; i < total.max_abs.size(); ++i) {
      total.max_abs[i] = std::max(total.max_abs[i], base.max_abs[i]);
    }
  }
  summation.all_sum(total.sums);
  summation.world().all_max(total.max_abs);
  total.normalise();
  return total;
}

}  // namespace reap
