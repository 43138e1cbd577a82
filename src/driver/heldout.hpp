#pragma once

#include <cstdint>

#include "driver/calibration.hpp"
#include "driver/commands.hpp"

namespace reap {

/// The first `count` samples of each domain, in their order and numbered anew; all of them when count is 0.
/// @param samples  outlived by the result, which reads tokens through a copy of it
Samples first_of_each_domain(const Samples& samples, std::int64_t count);

/// Opens the file of --heldout, in the format of calibration files, with the samples that --samples-per-domain takes.
/// The digest is that of the whole file. Collective. @throws SharedError
Calibration all_open_heldout(Job& job, std::int64_t vocab);

}  // namespace reap
