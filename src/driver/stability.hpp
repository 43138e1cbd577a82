#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "driver/criteria.hpp"
#include "driver/cut_noise.hpp"
#include "driver/plan_request.hpp"
#include "driver/saliency_file.hpp"

namespace reap {

/// Numbers of experts, ascending, of each layer.
using ExpertSets = std::vector<std::vector<std::int32_t>>;

/// How domains would cut, each by its own saliency alone. D = domains that have tokens.
struct DomainCuts {
  std::vector<std::string> names;            // [D]
  std::vector<std::vector<double>> overlap;  // [D][D] kept by both / kept by either (Jaccard), over all layers
  std::vector<ExpertSets> only;              // [D][layers] kept by this domain and dropped by all others
};

/// How sure and how general one cut is.
struct CutStability {
  std::string criterion;
  double ratio = 0;
  std::int64_t kept = 0;                       // of the experts of each layer
  std::vector<double> halves;                  // [layers] share of the kept experts that both halves keep
  std::vector<std::optional<CutNoise>> noise;  // [layers]; empty for a criterion that averages nothing
  DomainCuts domains;
};

/// @param request  criterion and number of experts; nothing else of it counts
/// @throws Error(usage) as make_plan
CutStability cut_stability(const SaliencyFile& file, const PlanRequest& request);

/// Experts that fewer than `least` tokens chose.
ExpertSets starved_experts(const Saliency& saliency, std::int64_t least);

double mean(const std::vector<double>& values);

}  // namespace reap
