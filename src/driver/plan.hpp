#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "driver/plan_request.hpp"
#include "driver/saliency_file.hpp"

namespace reap {

/// One layer of a plan.
struct LayerPlan {
  std::vector<std::int32_t> keep;   // ascending original ids
  std::vector<double> score;        // [experts]
  std::vector<std::int64_t> count;  // [experts] tokens, of domains whose weight is above 0
  double margin = 0;                // score of the next to go - that of the last dropped; 0 when nothing is dropped
  // Kept although experts that rank higher go:
  std::vector<std::int32_t> preserved;          // super experts
  std::vector<std::int32_t> protected_experts;  // that carry much of a domain
};

/// A domain of the samples that a plan rests on.
struct PlanDomain {
  std::string name;
  std::int64_t tokens = 0;
};

struct Plan {
  PlanRequest request;
  std::string model_digest;
  std::string model_type;
  std::string calibration_digest;
  std::int64_t samples = 0;  // of the calibration
  std::int64_t tokens = 0;
  std::vector<PlanDomain> domains;
  std::string compute;  // how the saliency was computed: "fp32" or "bf16"
  std::int64_t block_tokens = 0;
  std::string numerics_id;
  std::int64_t experts = 0;  // before
  std::int64_t kept = 0;     // after, per layer; on average where layers share one budget
  std::int64_t top_k = 0;
  std::vector<LayerPlan> layers;
};

/// How many experts of each layer stay. @throws Error(usage) as make_plan
std::int64_t kept_experts(const PlanRequest& request, std::int64_t experts, std::int64_t top_k);

/// Decides which experts stay. Means are formed once, in fp64; experts with no token rank last; of equal scores the
/// lower id is kept; never fewer than top_k are kept. Source: REAP, arXiv:2510.13999.
/// @throws Error(usage) for an unknown criterion or domain, a ratio outside [0, 1), or a request that would keep fewer
///         than top_k, or drop experts that it protects, or sums that the file does not have
Plan make_plan(const SaliencyFile& saliency, const PlanRequest& request);

/// plan.json (docs/format/plan.md), canonical: the same plan gives the same bytes.
std::string plan_text(const Plan& plan);
Plan parse_plan(const std::string& text, const std::string& what);
/// Writes atomically (temporary name, fsync, rename).
void write_plan(const std::filesystem::path& file, const Plan& plan);
Plan read_plan(const std::filesystem::path& file);

/// A readable table: per layer kept count, lowest kept, highest dropped, margin, starved experts.
std::string plan_table(const Plan& plan);

}  // namespace reap
