#pragma once

#include "shard/pipeline.hpp"
#include "shard/saliency.hpp"

namespace reap {

/// The calibration pass: the field sums of all ranks over all blocks, normalised and checked, on top of what
/// `plan.start` brings; what else is collected, on rank 0. Collective over `world`.
/// @throws what all_pass throws; Error(numerics) naming layer, expert and sample
Saliency all_observe(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                     const PassEvents& events = {});

}  // namespace reap
