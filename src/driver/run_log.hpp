#pragma once

#include <filesystem>

#include "driver/commands.hpp"

namespace reap {

/// Writes how a run came to be: version, options in effect, hosts, times of the phases. The one output file that
/// differs from run to run. Collective.
void all_write_run_log(Job& job, const std::filesystem::path& file);

}  // namespace reap
