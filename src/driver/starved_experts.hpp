#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/importance.hpp"
#include "driver/plan.hpp"
#include "driver/quantize_options.hpp"

namespace reap {

/// Experts whose weights are rounded by a search without importance of their inputs, for they saw too few tokens:
/// by layer, numbers of the source, of those that the plan keeps.
using StarvedExperts = std::vector<std::vector<std::int32_t>>;
StarvedExperts starved_experts(const ImportanceSource& importance, const QuantizeOptions& options, const Source& source,
                               const Plan& plan);

std::int64_t count_of(const StarvedExperts& experts);

/// What to say of them: how many, and which, in a line for each of the first layers. @param of  experts in all
std::vector<std::string> starved_lines(const StarvedExperts& experts, std::int64_t of, std::int64_t least_tokens);

}  // namespace reap
