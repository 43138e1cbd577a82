#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "driver/stability_report.hpp"

namespace reap {

// One text per kind of file; inspect() chooses. @throws Error(bad_input), Error(io)

std::string inspect_model(const std::filesystem::path& directory);
std::string inspect_calibration(const std::filesystem::path& file);
std::string inspect_saliency(const std::filesystem::path& file, const StabilityRequest& request);
std::string inspect_plan(const std::filesystem::path& file);
std::string inspect_evaluation(const std::filesystem::path& file);
std::string inspect_state(const std::filesystem::path& folder);

/// "  name                value\n"
std::string inspect_line(std::string_view name, std::string_view value);

}  // namespace reap
