#include "shard/observation.hpp"

#include <algorithm>

#include "shard/input_tally.hpp"
#include "shard/moment_tally.hpp"
#include "shard/output_tally.hpp"
#include "shard/summation.hpp"
#include "shard/tally.hpp"

namespace reap {
namespace {

/// Sums the fields, and what else is collected, of every block in every layer of this rank.
class Observation final : public PassSink {
 public:
  Observation(const Comm& world, const PassPlan& plan, Backend& backend)
      : summation_{world, backend, plan.connect},
        base_{plan.start.snapshot.saliency},
        end_{plan.placement.layers.end},
        tally_{plan.model, plan.placement.layers, plan.samples.groups(), backend},
        outputs_{plan.model, plan.placement.layers, plan.collected, backend},
        inputs_{plan.model, plan.placement, plan.collected.imatrix, backend},
        moments_{plan.model, plan.placement.layers, plan.collected.moments, backend} {
    for (const Block& block : plan.blocks) longest_ = std::max(longest_, block.rows());
  }

  InputSums inputs(std::int64_t layer) override {
    InputSums sums = inputs_.at(layer, longest_);
    sums.moments = moments_.at(layer);
    return sums;
  }

  void layer(std::int64_t layer, const BlockRows& rows, const LayerTrace& trace) override {
    tally_.add(layer, rows, trace);
    outputs_.add(layer, rows, trace);
    if (layer + 1 != end_) return;
    inputs_.check();  // after the sums of outputs, which say more when they find the same
    moments_.check();
  }
  void all_sum(Snapshot& snapshot) override {
    snapshot.saliency = tally_.all_sum(summation_, base_);
    outputs_.all_sum(summation_, base_, snapshot.saliency);
    snapshot.saliency.imatrix = inputs_.all_sum(summation_.world(), base_.imatrix);
    snapshot.saliency.moments = moments_.all_sum(summation_.world(), base_.moments);
  }

 private:
  Summation summation_;
  const Saliency& base_;
  std::int64_t end_;  // of this rank's layers
  Tally tally_;
  OutputTally outputs_;
  InputTally inputs_;
  MomentTally moments_;
  std::int64_t longest_ = 0;
};

}  // namespace

Saliency all_observe(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                     const PassEvents& events) {
  Observation observation(world, plan, backend);
  Snapshot end = all_pass(world, pulse, plan, backend, observation, events);
  std::int64_t tokens = 0;
  for (const Block& block : plan.blocks) tokens += block.rows();
  end.saliency.check_conservation(tokens, plan.model.router.top_k);
  return std::move(end.saliency);
}

}  // namespace reap
