#pragma once

#include "driver/commands.hpp"

namespace reap {

/// The main job: one calibration pass, then a plan and a pruned checkpoint for every ratio and criterion. Collective.
///
/// The folder --output gets saliency.h5, run_log.json, and for every variant `<criterion>-<ratio>/` (the pruned model)
/// and `<criterion>-<ratio>.plan.json`.
void run(Job& job);

/// Model + plan.json -> pruned checkpoint. Collective.
void prune(Job& job);

}  // namespace reap
