#include "shard/observation.hpp"

#include "shard/tally.hpp"

namespace reap {
namespace {

/// Sums the fields of every block in every layer of this rank.
class Observation final : public PassSink {
 public:
  Observation(const Comm& world, const PassPlan& plan, Backend& backend)
      : world_{world},
        base_{plan.start.snapshot.saliency},
        tally_{plan.model, plan.placement.layers, plan.samples.groups(), backend} {}

  void layer(std::int64_t layer, const BlockRows& rows, const LayerTrace& trace) override {
    tally_.add(layer, rows, trace);
  }
  void all_sum(Snapshot& snapshot) override { snapshot.saliency = tally_.all_sum(world_, base_); }

 private:
  const Comm& world_;
  const Saliency& base_;
  Tally tally_;
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
