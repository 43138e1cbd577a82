#pragma once

#include "driver/commands.hpp"
#include "driver/saliency_file.hpp"
#include "shard/pipeline.hpp"

namespace reap {

/// The calibration pass as the user sees it: goes on from the saved state if there is one, shows progress, saves its
/// state when it is time to, and says how much of the time the ranks waited. Collective.
/// @param plan             its start is set here
/// @param flops_per_token  floating point operations of the whole forward pass, for the rate that is shown
/// @throws what all_observe and StateFolder throw
Saliency all_calibration_pass(Job& job, PassPlan& plan, const SaliencyInfo& info, double flops_per_token,
                              Backend& backend);

}  // namespace reap
