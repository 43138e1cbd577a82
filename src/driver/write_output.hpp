#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "driver/commands.hpp"
#include "driver/plan.hpp"
#include "driver/source.hpp"

namespace reap {

/// Before there is a plan, which will be of one of `requests`: refuses what could not be written or kept later. To be
/// called by one rank.
/// @throws Error(bad_input)
void check_output(const Source& source, const std::vector<PlanRequest>& requests, const std::filesystem::path& output,
                  const WriteOptions& options);

/// Whether the output of this plan is there already, whole. Another one that is there is refused, unless
/// --overwrite is given. Collective. @throws SharedError
bool all_is_finished(Job& job, const Source& source, const Plan& plan, const std::filesystem::path& output);

/// Writes one pruned checkpoint and, unless told not to, proves it before it gets its name. Collective.
/// @param evaluation  a Markdown table for its model card; "" = none
/// @param means       for --form substitution
/// @throws SharedError
void all_write_output(Job& job, const Source& source, const Plan& plan, const std::filesystem::path& output,
                      const std::string& evaluation = "", std::shared_ptr<const MeanOutputs> means = nullptr);

}  // namespace reap
