#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "driver/plan_request.hpp"
#include "driver/saliency_file.hpp"

namespace reap {

/// An expert by layer and number.
using ExpertAt = std::pair<std::int64_t, std::int64_t>;

/// Super experts: max|f| above the larger of its 99.5 % quantile over all layers and experts (linear interpolation)
/// and a tenth of its maximum, in layers below floor(0.75 * layers).
std::vector<ExpertAt> super_experts(const FieldTotals& totals);

/// Experts that carry more than the asked share of a domain's sum of g|f| in their layer.
/// @param protect  domains of the file, with shares
std::vector<ExpertAt> protected_experts(const SaliencyFile& file, const std::vector<DomainNumber>& protect);

}  // namespace reap
