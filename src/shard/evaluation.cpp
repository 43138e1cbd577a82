#include "shard/evaluation.hpp"

#include <algorithm>
#include <optional>

#include "kernels/check.hpp"
#include "shard/head.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

/// The most rows of any block.
std::int64_t longest_of(const std::vector<Block>& blocks) {
  const auto longest = std::ranges::max_element(blocks, {}, &Block::rows);
  return longest->rows();
}

/// Takes the final hidden states of a block's variants one after the other, and when all are there compares their
/// predictions tile by tile: the base's logits of a tile are computed once, and so are each variant's.
class Evaluation final : public PassSink {
 public:
  /// @param keep  takes the states of the first variant; null = nothing does
  /// @param base  the base, unless that is the first variant of the pass itself; null = it is
  Evaluation(const Comm& world, const PassPlan& plan, Backend& backend, FinalStates* keep, const PassedModel* base)
      : world_{world},
        plan_{plan},
        backend_{backend},
        keep_{keep},
        other_{base},
        first_{base == nullptr ? 0 : 1},
        variants_{first_ + static_cast<std::int64_t>(plan.variants.size())},
        width_{plan.model.hidden},
        sums_{variants_, plan.samples.groups()} {}

  /// On ranks of the last stage, before the pass.
  void prepare() {
    head_.emplace(load_head(plan_.checkpoint, plan_.model, backend_));
    if (other_ == nullptr) {
      base_.emplace(plan_.model, *head_, backend_);
    } else {
      other_head_.emplace(load_head(other_->checkpoint, other_->model, backend_));
      base_.emplace(other_->model, *other_head_, backend_);
    }
    if (variants_ > 1) variant_.emplace(plan_.model, *head_, backend_);
    max_rows_ = longest_of(plan_.blocks);
    hidden_ = {host_memory, variants_ * max_rows_ * width_};
    x_ = {backend_.memory(), HeadForward::kTileRows * width_};
    target_ = {backend_.memory(), HeadForward::kTileRows};
    for (Buffer<Prediction>* buffer : {&p_, &q_}) *buffer = {backend_.memory(), HeadForward::kTileRows};
    divergence_ = {backend_.memory(), HeadForward::kTileRows};
  }

  void last(const Block& block, std::int64_t variant, const BlockRows& rows, const float* x) override {
    backend_.download(hidden_of(first_ + variant), x, static_cast<std::size_t>(rows.rows() * width_) * sizeof(float));
    backend_.synchronize();
    if (keep_ != nullptr && variant == 0) keep_->store(block, x);
    if (first_ + variant + 1 < variants_) return;
    if (other_ != nullptr) other_->states.read(block, hidden_of(0));
    const std::vector<std::int32_t> targets = targets_of(block, rows);
    operations::note("predict the next tokens", plan_.model.layers - 1, block.index);
    for (std::int64_t first = 0; first < rows.rows(); first += HeadForward::kTileRows) {
      measure_tile(rows, first, std::min(HeadForward::kTileRows, rows.rows() - first), targets);
      operations::moved();
      world_.idle();  // many variants of a long block take minutes: other ranks have to hear of this one
    }
    sums_.normalise();
  }

  /// The sums of all ranks.
  PredictionSums all_sums() {
    sums_.all_sum(world_);
    check_conservation();
    return std::move(sums_);
  }

 private:
  float* hidden_of(std::int64_t variant) { return hidden_.data() + variant * max_rows_ * width_; }

  /// [rows] the token that follows each, or -1 at the end of its sample.
  std::vector<std::int32_t> targets_of(const Block& block, const BlockRows& rows) const {
    std::vector<std::int32_t> targets = plan_.samples.read_tokens(block.begin, block.end);
    REAP_CHECK(static_cast<std::int64_t>(targets.size()) == block.rows(), "block {} has {} tokens, read {}",
               block.index, block.rows(), targets.size());
    for (const std::int32_t token : targets) {
      if (token >= 0 && token < plan_.model.vocab) continue;
      fail(ExitCode::bad_input, "block {} has token {}, not in the model's vocabulary of {}", block.index, token,
           plan_.model.vocab);
    }
    std::shift_left(targets.begin(), targets.end(), 1);
    for (const std::int64_t end : rows.start().subspan(1)) targets[static_cast<std::size_t>(end - 1)] = -1;
    return targets;
  }

  void measure_tile(const BlockRows& rows, std::int64_t first, std::int64_t count,
                    const std::vector<std::int32_t>& targets) {
    const std::int64_t vocab = plan_.model.vocab;
    backend_.upload(target_.data(), targets.data() + first, static_cast<std::size_t>(count) * sizeof(std::int32_t));
    const float* const p = logits(*base_, 0, first, count);
    backend_.predict(p, target_.data(), count, vocab, p_.data());
    const std::vector<Prediction> base = downloaded(p_, count);
    for (std::int64_t variant = 0; variant < variants_; ++variant) {
      std::vector<Prediction> own = base;
      std::vector<Divergence> apart(static_cast<std::size_t>(count), {0, 1});
      if (variant > 0) {
        const float* const q = logits(*variant_, variant, first, count);
        backend_.predict(q, target_.data(), count, vocab, q_.data());
        backend_.diverge(p, p_.data(), q, q_.data(), count, vocab, divergence_.data());
        own = downloaded(q_, count);
        apart = downloaded(divergence_, count);
      }
      for (std::int64_t row = 0; row < count; ++row) {
        const auto i = static_cast<std::size_t>(row);
        if (targets[static_cast<std::size_t>(first) + i] < 0) continue;
        add(variant, rows, first + row, {own[i].nll, apart[i].kl, apart[i].overlap, own[i].top == base[i].top});
      }
    }
  }

  const float* logits(HeadForward& head, std::int64_t variant, std::int64_t first, std::int64_t count) {
    backend_.upload(x_.data(), hidden_of(variant) + first * width_,
                    static_cast<std::size_t>(count * width_) * sizeof(float));
    return head.tile(x_.data(), count);
  }

  template <class T>
  std::vector<T> downloaded(const Buffer<T>& buffer, std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    backend_.download(values.data(), buffer.data(), values.size() * sizeof(T));
    backend_.synchronize();
    return values;
  }

  void add(std::int64_t variant, const BlockRows& rows, std::int64_t row, const TokenMeasures& token) {
    const std::int32_t group = rows.host_group()[static_cast<std::size_t>(row)];
    if (sums_.add(variant, group, token)) return;
    fail(ExitCode::numerics,
         "variant {} (0 is the base), sample {} (domain {}, half {}), token {} of it: a prediction is not finite or "
         "out of range (nll "
         "{}, kl {}); look for broken weights, or leave the sample out",
         variant, rows.sample_of(row), group / 2, group % 2, rows.offset_in_sample(row), token.nll, token.kl);
  }

  /// Every token but the last of each sample was predicted once by every variant.
  void check_conservation() const {
    std::int64_t expected = 0;
    for (const Block& block : plan_.blocks) expected += block.rows() - (block.last - block.first);
    std::vector<std::int64_t> all(static_cast<std::size_t>(sums_.groups()));
    for (std::size_t group = 0; group < all.size(); ++group) all[group] = static_cast<std::int64_t>(group);
    for (std::int64_t variant = 0; variant < variants_; ++variant) {
      const std::int64_t predicted = sums_.mean(variant, all).predicted;
      REAP_CHECK(predicted == expected, "variant {} predicted {} tokens of {}", variant, predicted, expected);
    }
  }

  const Comm& world_;
  const PassPlan& plan_;
  Backend& backend_;
  FinalStates* keep_;
  const PassedModel* other_;
  std::int64_t first_;  // of the pass's variants, among all that are compared
  std::int64_t variants_, width_;
  std::int64_t max_rows_ = 0;
  PredictionSums sums_;
  std::optional<Head> head_, other_head_;
  std::optional<HeadForward> base_, variant_;
  Buffer<float> hidden_;           // host, [variants, max_rows, hidden] of the block at hand
  Buffer<float> x_;                // [kTileRows, hidden]
  Buffer<std::int32_t> target_;    // [kTileRows]
  Buffer<Prediction> p_, q_;       // [kTileRows]
  Buffer<Divergence> divergence_;  // [kTileRows]
};

PredictionSums all_run(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend, FinalStates* keep,
                       const PassedModel* base, const PassEvents& events) {
  Evaluation evaluation(world, plan, backend, keep, base);
  world.all_try([&] {
    if (plan.placement.layers.end == plan.model.layers) evaluation.prepare();
  });
  all_pass(world, pulse, plan, backend, evaluation, events);
  return evaluation.all_sums();
}

}  // namespace

PredictionSums all_evaluate(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                            const PassEvents& events, FinalStates* keep) {
  return all_run(world, pulse, plan, backend, keep, nullptr, events);
}

PredictionSums all_compare(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                           const PassedModel& base, const PassEvents& events) {
  REAP_CHECK(base.model.hidden == plan.model.hidden && base.model.vocab == plan.model.vocab,
             "widths {} and {}, vocabularies {} and {}", base.model.hidden, plan.model.hidden, base.model.vocab,
             plan.model.vocab);
  return all_run(world, pulse, plan, backend, nullptr, &base, events);
}

}  // namespace reap
