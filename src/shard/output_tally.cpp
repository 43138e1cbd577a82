#include "shard/output_tally.hpp"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::int64_t kRowsPerCarry = std::int64_t{1} << 30;  // a digit holds twice as many

template <class T>
std::size_t bytes_of(const std::vector<T>& values) {
  return values.size() * sizeof(T);
}

void zero(Backend& backend, const Buffer<std::int64_t>& sums) {
  backend.zero(sums.data(), static_cast<std::size_t>(sums.bytes()));
}

}  // namespace

OutputTally::OutputTally(const Model& model, const Range& layers, const Collected& collected, Backend& backend)
    : backend_{backend},
      layers_{layers},
      model_layers_{model.layers},
      experts_{model.router.experts},
      top_k_{model.router.top_k},
      hidden_{model.hidden},
      collected_{collected},
      gram_{backend.memory(), collected.gram ? layers.size() * pair_count(experts_) * kDigits : 0},
      outputs_{backend.memory(), collected.outputs ? layers.size() * experts_ * hidden_ : 0},
      watch_{backend, top_k_},
      rows_(static_cast<std::size_t>(layers.size())) {
  zero(backend, gram_);
  zero(backend, outputs_);
}

void OutputTally::add(std::int64_t layer, const BlockRows& block, const LayerTrace& trace) {
  const std::int64_t own = layer - layers_.begin;
  if (collected_.outputs) {
    backend_.accumulate_outputs(trace.expert, trace.f, trace.position, block.rows(), top_k_, hidden_,
                                outputs_.data() + own * experts_ * hidden_);
  }
  if (!collected_.gram) return;
  std::int64_t& rows = rows_[static_cast<std::size_t>(own)];
  if (rows + block.rows() > kRowsPerCarry) carry(layer);
  rows += block.rows();
  backend_.accumulate_pairs(trace.expert, trace.gate_value, trace.f, trace.position, block.rows(), top_k_, hidden_,
                            experts_, gram_.data() + own * pair_count(experts_) * kDigits, watch_.bad_slot());
  watch_.added(layer, block, trace);
  if (layer + 1 == layers_.end || watch_.long_unseen()) look();
}

void OutputTally::look() {
  const std::optional<SlotWatch::Found> found = watch_.look();
  if (!found) return;
  fail(ExitCode::numerics,
       "layer {}, expert {}, sample {}, token {} of it: the square of its gated output is not finite or out of range; "
       "look for broken weights in this layer or before, leave the sample out, or collect no gram (--collect none)",
       found->layer, found->slot.expert, found->sample, found->token);
}

void OutputTally::carry(std::int64_t layer) {
  std::vector<std::int64_t> sums(static_cast<std::size_t>(pair_count(experts_) * kDigits));
  std::int64_t* const at = gram_.data() + (layer - layers_.begin) * pair_count(experts_) * kDigits;
  backend_.download(sums.data(), at, bytes_of(sums));
  backend_.synchronize();
  normalise_gram(sums, experts_, layer);
  backend_.upload(at, sums.data(), bytes_of(sums));
  backend_.synchronize();
  rows_[static_cast<std::size_t>(layer - layers_.begin)] = 0;
}

std::vector<std::int64_t> OutputTally::all_sum_layer(Summation& summation, std::int64_t layer,
                                                     const Buffer<std::int64_t>& sums, std::int64_t size,
                                                     const std::vector<std::int64_t>& base) const {
  std::vector<std::int64_t> total(static_cast<std::size_t>(size));
  if (layers_.holds(layer)) {
    backend_.download(total.data(), sums.data() + (layer - layers_.begin) * size, bytes_of(total));
    backend_.synchronize();
    // Digits of a layer: carried, so that those of all ranks have room in one.
    if (&sums == &gram_) normalise_gram(total, experts_, layer);
  }
  if (summation.world().rank() == 0 && !base.empty()) {
    REAP_CHECK(std::cmp_equal(base.size(), model_layers_ * size), "a base of {} sums, not {}", base.size(),
               model_layers_ * size);
    std::transform(total.begin(), total.end(), base.begin() + layer * size, total.begin(), std::plus<>());
  }
  summation.all_sum_at_first(total);
  return total;
}

void OutputTally::all_sum(Summation& summation, const Saliency& base, Saliency& total) {
  look();
  total.hidden = collected_.outputs ? hidden_ : 0;
  if (collected_.outputs) check_output_range(total);
  const auto append = [&](std::vector<std::int64_t>& all, const std::vector<std::int64_t>& layer) {
    if (summation.world().rank() == 0) all.insert(all.end(), layer.begin(), layer.end());
  };
  for (std::int64_t layer = 0; layer < model_layers_; ++layer) {
    if (collected_.gram) {
      std::vector<std::int64_t> sums =
          all_sum_layer(summation, layer, gram_, pair_count(experts_) * kDigits, base.gram);
      normalise_gram(sums, experts_, layer);
      append(total.gram, sums);
    }
    if (collected_.outputs)
      append(total.outputs, all_sum_layer(summation, layer, outputs_, experts_ * hidden_, base.outputs));
  }
}

}  // namespace reap
