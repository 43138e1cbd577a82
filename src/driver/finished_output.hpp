#pragma once

#include <filesystem>
#include <string>

#include "driver/output_plan.hpp"
#include "driver/plan.hpp"

namespace reap {

// Whether an output that is there already is the one that would be written: by its manifest, and by the names and sizes
// of its files. Their contents were proved before it got its name; `verify` proves them again.

/// Before there is a plan: the differences that are known by then.
/// @return what is different, to follow the output's name; "" when nothing is
std::string output_difference(const std::filesystem::path& output, const std::string& source_digest,
                              const PlanRequest& request, const WriteOptions& options);

/// All differences.
std::string output_difference(const std::filesystem::path& output, const std::string& source_digest, const Plan& plan,
                              const WriteOptions& options);

}  // namespace reap
