#pragma once

#include <functional>
#include <string_view>

#include "driver/commands.hpp"
#include "shard/pipeline.hpp"

namespace reap {

/// A pass as the user sees it: shows its progress, says in the end how much of the time the ranks of each stage waited
/// and how far memory grew. Collective.
/// @param phase            "observe", "eval"
/// @param flops_per_token  floating point operations of the whole forward pass, for the rate that is shown
/// @param events           what else is to be told; layer_read, layer_done and block_done are taken
/// @param all_run          the pass, with these events
void all_watch_pass(Job& job, const PassPlan& plan, std::string_view phase, double flops_per_token, PassEvents events,
                    const std::function<void(const PassEvents& events)>& all_run);

}  // namespace reap
