#pragma once

#include <filesystem>

#include "driver/commands.hpp"
#include "driver/saliency_file.hpp"
#include "driver/source.hpp"

namespace reap {

/// The calibration pass of the job: opens the calibration file, chooses the grid, takes the samples through the model
/// and writes `file` (rank 0). A `file` that already holds this very result (same model, calibration, block size,
/// compute type and numerics) is used instead; any other existing file is refused unless --overwrite. Collective.
/// @return the same sums on every rank
SaliencyFile all_observe_job(Job& job, const Source& source, const std::filesystem::path& file);

}  // namespace reap
