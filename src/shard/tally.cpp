#include "shard/tally.hpp"

#include <algorithm>
#include <limits>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::int64_t kNoSlot = std::numeric_limits<std::int64_t>::max();

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
      bad_slot_{backend.memory(), 1},
      tokens_(static_cast<std::size_t>(layers.size() * groups)) {
  backend.zero(sums_.data(), static_cast<std::size_t>(sums_.bytes()));
  backend.zero(max_abs_.data(), static_cast<std::size_t>(max_abs_.bytes()));
  backend.upload(bad_slot_.data(), &kNoSlot, sizeof kNoSlot);
}

void Tally::add(std::int64_t layer, const BlockRows& block, const LayerTrace& trace) {
  const std::int64_t first = cell(layer, 0);
  backend_.accumulate(trace.expert, trace.gate_value, trace.norm, trace.max_abs, trace.position, block.group(),
                      block.rows(), top_k_, experts_, sums_.data() + first * kSumsPerExpert, max_abs_.data() + first,
                      bad_slot_.data());
  std::int64_t bad = kNoSlot;
  backend_.download(&bad, bad_slot_.data(), sizeof bad);
  backend_.synchronize();
  if (bad != kNoSlot) fail_slot(layer, block, trace, bad);
  settle(layer, block);
}

void Tally::fail_slot(std::int64_t layer, const BlockRows& block, const LayerTrace& trace, std::int64_t slot) {
  std::int32_t expert = 0;
  std::int32_t position = 0;
  float gate_value = 0;
  float norm = 0;
  backend_.download(&expert, trace.expert + slot, sizeof expert);
  backend_.download(&gate_value, trace.gate_value + slot, sizeof gate_value);
  backend_.download(&position, trace.position + slot, sizeof position);
  backend_.synchronize();
  backend_.download(&norm, trace.norm + position, sizeof norm);
  backend_.synchronize();
  const std::int64_t row = slot / top_k_;
  const std::int32_t group = block.host_group()[static_cast<std::size_t>(row)];
  const std::int64_t sample = block.sample_of(row);
  fail(ExitCode::numerics,
       "layer {}, expert {}, sample {} (domain {}, half {}), token {} of it: gate value {} or norm {} is not finite or "
       "out of range; look for broken weights in this layer or before, or leave the sample out",
       layer, expert, sample, group / 2, group % 2, block.offset_in_sample(row), gate_value, norm);
}

/// Brings the digits of the groups in the block to canonical form, and compares counts with tokens.
void Tally::settle(std::int64_t layer, const BlockRows& block) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(groups_));
  for (const std::int32_t group : block.host_group()) ++rows[static_cast<std::size_t>(group)];
  std::vector<std::int64_t> sums(static_cast<std::size_t>(experts_ * kSumsPerExpert));
  const std::size_t bytes = sums.size() * sizeof(std::int64_t);
  for (std::int64_t group = 0; group < groups_; ++group) {
    if (rows[static_cast<std::size_t>(group)] == 0) continue;
    std::int64_t& tokens = tokens_[static_cast<std::size_t>((layer - layers_.begin) * groups_ + group)];
    tokens += rows[static_cast<std::size_t>(group)];
    std::int64_t* at = sums_.data() + cell(layer, group) * kSumsPerExpert;
    backend_.download(sums.data(), at, bytes);
    backend_.synchronize();
    normalise_sums(sums, layer);
    std::int64_t slots = 0;
    for (std::int64_t expert = 0; expert < experts_; ++expert) {
      slots += sums[static_cast<std::size_t>(expert * kSumsPerExpert)];
    }
    REAP_CHECK(slots == top_k_ * tokens, "layer {}, group {}: counts add up to {}, expected top_k {} x {} tokens",
               layer, group, slots, top_k_, tokens);
    backend_.upload(at, sums.data(), bytes);
  }
  backend_.synchronize();
}

Saliency Tally::all_sum(const Comm& world, const Saliency& base) const {
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
  if (world.rank() == 0 && !base.sums.empty()) {
    REAP_CHECK(base.sums.size() == total.sums.size(), "a base of {} sums, not {}", base.sums.size(), total.sums.size());
    for (std::size_t i = 0; i < total.sums.size(); ++i) total.sums[i] += base.sums[i];
    for (std::size_t i = 0; i < total.max_abs.size(); ++i) {
      total.max_abs[i] = std::max(total.max_abs[i], base.max_abs[i]);
    }
  }
  world.all_sum(total.sums);
  world.all_max(total.max_abs);
  total.normalise();
  return total;
}

}  // namespace reap
