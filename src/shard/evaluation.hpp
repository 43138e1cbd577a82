#pragma once

#include "shard/pipeline.hpp"
#include "shard/prediction_sums.hpp"

namespace reap {

/// A pass that measures how well each variant of `plan` predicts every next token within its sample: the sums of all
/// ranks over all blocks. Variant 0 is the one that others are compared with. The ranks of the last stage hold the
/// head, and logits of a tile of rows at a time; nothing of it can be saved. Collective over `world`.
/// @throws what all_pass throws; Error(numerics) naming variant, sample and token
PredictionSums all_evaluate(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                            const PassEvents& events = {});

}  // namespace reap
