#pragma once

#include <filesystem>
#include <string>

namespace reap {

/// What a model directory, a state, a calibration, saliency or plan file holds, as text for people. The kind is found
/// out from the file.
/// @throws Error(bad_input) when it is none of them or is broken
std::string inspect(const std::filesystem::path& path);

}  // namespace reap
