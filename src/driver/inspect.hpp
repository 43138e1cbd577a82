#pragma once

#include <filesystem>
#include <string>

#include "driver/stability_report.hpp"

namespace reap {

/// What a model directory, a state, a calibration, saliency or plan file holds, as text for people. The kind is found
/// out from the file.
/// @param request  what to say about the cuts of a saliency file
/// @throws Error(bad_input) when it is none of them or is broken, Error(usage) for a cut that cannot be
std::string inspect(const std::filesystem::path& path, const StabilityRequest& request = {});

/// The stability of a saliency file as one line of JSON (docs/format/stability.md).
/// @throws Error(usage) for any other file
std::string inspect_json(const std::filesystem::path& path, const StabilityRequest& request = {});

}  // namespace reap
