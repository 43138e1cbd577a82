#pragma once

#include <filesystem>
#include <string>

#include "driver/commands.hpp"
#include "driver/plan.hpp"
#include "driver/saliency_file.hpp"
#include "driver/source.hpp"

namespace reap {

/// The calibration pass of the job: opens the calibration file, chooses the grid, takes the samples through the model
/// and writes `file` (rank 0). A `file` that already holds this very result (same model, calibration, block size,
/// compute type and numerics) is used instead; any other existing file is refused unless --overwrite. Collective.
/// @param routing  a plan whose dropped experts no token is routed to, as in the pruned model; null: all may be chosen
/// @return the fields on every rank; what else was collected on rank 0, unless it was in the file already
SaliencyFile all_observe_job(Job& job, const Source& source, const std::filesystem::path& file,
                             const Plan* routing = nullptr);

/// The squares of inputs of what a plan leaves, with the pruned model's routing: a pass of its own. In
/// `<output>/<name>.saliency.h5`; its state is in a folder of that name in --state. Collective.
/// @return the file
std::filesystem::path all_observe_survivors(Job& job, const Source& source, const Plan& plan, const std::string& name);

}  // namespace reap
