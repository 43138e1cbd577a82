#pragma once

#include "shard/final_states.hpp"
#include "shard/pipeline.hpp"
#include "shard/prediction_sums.hpp"

namespace reap {

/// A pass that measures how well each variant of `plan` predicts every next token within its sample: the sums of all
/// ranks over all blocks. Variant 0 is the one that others are compared with. The ranks of the last stage hold the
/// head, and logits of a tile of rows at a time; nothing of it can be saved. Collective over `world`.
/// @param keep  where the final hidden states of variant 0 are left; null = nowhere
/// @throws what all_pass throws; Error(numerics) naming variant, sample and token
PredictionSums all_evaluate(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                            const PassEvents& events = {}, FinalStates* keep = nullptr);

/// A model that has been through a pass, as far as its predictions depend on it.
struct PassedModel {
  const Checkpoint& checkpoint;
  const Model& model;
  FinalStates& states;
};

/// The same for the one variant of `plan`, compared with another model of the same vocabulary and width, which has been
/// through a pass over the same blocks on the same grid. Variant 0 of the sums is `base`, 1 is the model of the plan.
PredictionSums all_compare(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                           const PassedModel& base, const PassEvents& events = {});

}  // namespace reap
