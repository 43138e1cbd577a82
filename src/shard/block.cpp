#include "shard/block.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/check.hpp"
#include "shard/operations.hpp"
#include "shard/room.hpp"

namespace reap {

BlockRows::BlockRows(Backend& backend, std::int64_t max_rows)
    : backend_{backend}, position_{backend.memory(), max_rows}, group_{backend.memory(), max_rows} {}

void BlockRows::set(const Samples& samples, const Block& block) {
  clear();
  first_sample_ = block.first;
  for (std::int64_t sample = block.first; sample < block.last; ++sample) {
    const auto at = static_cast<std::size_t>(sample);
    const std::int64_t length = samples.offsets[at + 1] - samples.offsets[at];
    for (std::int64_t i = 0; i < length; ++i) host_position_.push_back(static_cast<std::int32_t>(i));
    host_group_.insert(host_group_.end(), static_cast<std::size_t>(length), samples.group(sample));
    start_.push_back(start_.back() + length);
  }
  REAP_CHECK(rows() == block.rows() && rows() <= position_.size(), "block {} has {} rows, expected {}, room for {}",
             block.index, rows(), block.rows(), position_.size());
  const std::size_t bytes = host_position_.size() * sizeof(std::int32_t);
  backend_.upload(position_.data(), host_position_.data(), bytes);
  backend_.upload(group_.data(), host_group_.data(), bytes);
}

void BlockRows::clear() {
  start_.assign(1, 0);
  host_position_.clear();
  host_group_.clear();
}

std::int64_t BlockRows::sample_of(std::int64_t row) const {
  const auto after = std::upper_bound(start_.begin(), start_.end(), row);
  return first_sample_ + (after - start_.begin()) - 1;
}

BlockForward::BlockForward(const Model& model, const Placement& placement, Backend& backend, Link& link,
                           std::int64_t max_rows)
    : model_{model},
      placement_{placement},
      backend_{backend},
      link_{link},
      exchange_{model, placement, backend, link},
      q_width_{model.attention.heads * model.attention.head_dim},
      kv_width_{model.attention.kv_heads * model.attention.head_dim},
      act_bytes_{static_cast<std::int64_t>(size_of(activation_dtype(backend.compute())))},
      start_(static_cast<std::size_t>(placement.experts.size()) + 1) {
  const std::int64_t slots = max_rows * model.router.top_k;
  REAP_CHECK(slots * placement.grid.ep <= std::numeric_limits<std::int32_t>::max(), "{} rows are too many for a block",
             max_rows);
  const Memory& memory = backend.memory();
  const auto act = [&](std::int64_t rows, std::int64_t width) {
    return Buffer<std::byte>(memory, rows * width * act_bytes_);
  };
  attention_in_ = act(max_rows, model.hidden);
  attention_out_ = act(max_rows, q_width_);
  q_act_ = act(max_rows, q_width_);
  k_act_ = act(max_rows, kv_width_);
  v_act_ = act(max_rows, kv_width_);
  q_ = {memory, max_rows * q_width_};
  k_ = {memory, max_rows * kv_width_};
  v_ = {memory, max_rows * kv_width_};
  moe_input_ = {memory, max_rows * model.hidden};
  logits_ = {memory, max_rows * model.router.experts};
  gate_value_ = {memory, slots};
  // With top_k slots a row, most rows go to most shards: room for all of them at once.
  expert_in_ = act(max_rows * placement.grid.ep, model.hidden);
  expert_ = {memory, slots * placement.grid.ep};
  position_ = {memory, slots * placement.grid.ep};
  order_ = {memory, slots * placement.grid.ep};
  row_ = {memory, slots * placement.grid.ep};
  // The outputs are large, and how many of a group's slots fall to one rank is known only when they are there.
  f_ = act(slots, model.hidden);
  norm_ = {memory, slots};
  max_abs_ = {memory, slots};
}

LayerTrace BlockForward::all_layer(const LayerWeights& weights, const float* gate_bias, const BlockRows& block,
                                   float* x, const InputSums& sums) {
  const std::int64_t rows = block.rows();
  attention(weights, block, sums, x);
  route(weights, gate_bias, rows, x);
  accumulate_moments(expert_in_, rows, model_.hidden, sums.moments.experts);
  if (placement_.grid.ep == 1) {
    own_experts(weights, rows, sums);
  } else {
    all_group_experts(weights, rows, sums);
  }
  backend_.combine(f_.data(), position_.data(), gate_value_.data(), rows, model_.router.top_k, model_.hidden, x);
  return {moe_input_.data(), logits_.data(), expert_.data(),  gate_value_.data(),
          position_.data(),  norm_.data(),   max_abs_.data(), f_.data()};
}

void BlockForward::attention(const LayerWeights& weights, const BlockRows& block, const InputSums& sums, float* x) {
  const std::int64_t rows = block.rows();
  const std::array<std::int64_t, 2> all{0, rows};
  operations::note("attention");
  backend_.rms_norm(x, weights.input_norm.data(), model_.norm_eps, rows, model_.hidden, nullptr, attention_in_.data());
  if (sums.attention.sums != nullptr) {
    backend_.accumulate_squares(attention_in_.data(), nullptr, all, model_.hidden, sums.attention);
  }
  accumulate_moments(attention_in_, rows, model_.hidden, sums.moments.attention);
  backend_.matmul(attention_in_.data(), rows, *weights.q, q_.data(), false);
  link_.progress();
  backend_.matmul(attention_in_.data(), rows, *weights.k, k_.data(), false);
  backend_.matmul(attention_in_.data(), rows, *weights.v, v_.data(), false);
  backend_.qk_norm_rope(q_.data(), k_.data(), v_.data(), weights.q_norm.data(), weights.k_norm.data(), block.position(),
                        model_.attention, rows, q_act_.data(), k_act_.data(), v_act_.data());
  link_.progress();
  backend_.attention(q_act_.data(), k_act_.data(), v_act_.data(), block.start(), model_.attention,
                     attention_out_.data());
  link_.progress();
  if (sums.output.sums != nullptr) {
    backend_.accumulate_squares(attention_out_.data(), nullptr, all, q_width_, sums.output);
  }
  accumulate_moments(attention_out_, rows, q_width_, sums.moments.output);
  backend_.matmul(attention_out_.data(), rows, *weights.o, x, true);
  link_.progress();
}

void BlockForward::accumulate_moments(const Buffer<std::byte>& x, std::int64_t rows, std::int64_t width,
                                      const MomentSums& to) {
  if (to.sums == nullptr) return;
  operations::note("moments");
  backend_.accumulate_moments(x.data(), rows, width, to);
  link_.progress();
}

void BlockForward::route(const LayerWeights& weights, const float* gate_bias, std::int64_t rows, const float* x) {
  operations::note("route");
  backend_.rms_norm(x, weights.post_norm.data(), model_.norm_eps, rows, model_.hidden, moe_input_.data(),
                    expert_in_.data());
  backend_.route(moe_input_.data(), *weights.gate, gate_bias, rows, model_.router.top_k, logits_.data(), expert_.data(),
                 gate_value_.data());
}

/// Groups the first `slots` slots by expert. @return how many belong to experts of this rank
std::int64_t BlockForward::group(std::int64_t slots) {
  backend_.group_slots(expert_.data(), slots, static_cast<std::int32_t>(placement_.experts.begin),
                       placement_.experts.size(), order_.data(), position_.data(), start_.data());
  return start_.back();
}

/// f, norm and max_abs of the grouped slots, with room behind them for `returned` more.
void BlockForward::compute_experts(const LayerWeights& weights, std::int64_t returned, const InputSums& sums) {
  const std::int64_t places = start_.back() + returned;
  make_room(f_, backend_.memory(), places * model_.hidden * act_bytes_);
  make_room(norm_, backend_.memory(), places);
  make_room(max_abs_, backend_.memory(), places);
  operations::note("experts");
  backend_.experts(expert_in_.data(), row_.data(), start_, weights.experts, f_.data(), norm_.data(), max_abs_.data(),
                   sums.inner);
  if (sums.experts.sums != nullptr) {
    backend_.accumulate_squares(expert_in_.data(), row_.data(), start_, model_.hidden, sums.experts);
  }
  link_.progress();
}

void BlockForward::own_experts(const LayerWeights& weights, std::int64_t rows, const InputSums& sums) {
  const std::int64_t slots = group(rows * model_.router.top_k);
  backend_.slot_rows(order_.data(), slots, model_.router.top_k, row_.data());
  compute_experts(weights, 0, sums);
}

void BlockForward::all_group_experts(const LayerWeights& weights, std::int64_t rows, const InputSums& sums) {
  const auto top_k = static_cast<std::int32_t>(model_.router.top_k);
  const auto own = static_cast<std::size_t>(rows * top_k);
  host_expert_.resize(own);
  backend_.download(host_expert_.data(), expert_.data(), own * sizeof(std::int32_t));
  backend_.synchronize();
  const std::span<const SlotTag> came = exchange_.all_dispatch(host_expert_, rows, expert_in_.data());
  for (const SlotTag& tag : came) host_expert_.push_back(tag.expert);
  backend_.upload(expert_.data() + own, host_expert_.data() + own, came.size() * sizeof(std::int32_t));

  const auto slots = host_expert_.size();
  const auto computed = static_cast<std::size_t>(group(static_cast<std::int64_t>(slots)));
  host_row_.resize(computed);
  host_position_.resize(slots);
  backend_.download(host_row_.data(), order_.data(), computed * sizeof(std::int32_t));
  backend_.download(host_position_.data(), position_.data(), slots * sizeof(std::int32_t));
  backend_.synchronize();
  for (std::int32_t& slot : host_row_) {
    const auto s = static_cast<std::size_t>(slot);
    slot = s < own ? slot / top_k : came[s - own].row;
  }
  backend_.upload(row_.data(), host_row_.data(), computed * sizeof(std::int32_t));
  compute_experts(weights, exchange_.sent_slots(), sums);

  const std::span<std::int32_t> position(host_position_);
  exchange_.all_collect(std::span(host_expert_).first(own), position.subspan(own), static_cast<std::int64_t>(computed),
                        f_.data(), norm_.data(), max_abs_.data(), position.first(own));
  backend_.upload(position_.data(), host_position_.data(), own * sizeof(std::int32_t));
}

}  // namespace reap
