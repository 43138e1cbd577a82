#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/saliency_file.hpp"
#include "driver/stability.hpp"

namespace reap {

/// What is asked of a saliency file.
struct StabilityRequest {
  std::vector<std::string> criteria = {"reap"};
  std::vector<double> ratios = {};  // empty: 0.25 and 0.5, as far as the router allows them
  std::int64_t starved = 100;       // tokens below which an expert is starved
};

/// The answers, in the order of the request.
struct StabilityReport {
  std::int64_t starved_below = 0;
  ExpertSets starved;
  std::vector<CutStability> cuts;
};

/// @throws Error(usage) for an unknown criterion, or a ratio that was asked for and leaves too few experts
StabilityReport report_stability(const SaliencyFile& file, const StabilityRequest& request);

/// For people.
std::string stability_text(const SaliencyFile& file, const StabilityReport& report);
/// For programs, one line (docs/format/stability.md).
std::string stability_json(const SaliencyFile& file, const StabilityReport& report);

}  // namespace reap
