#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "driver/saliency_file.hpp"

namespace reap {

/// How experts are chosen.
struct PlanRequest {
  std::string criterion = "reap";  // one of criterion_names()
  double ratio = 0;                // drop floor(experts * ratio) per layer, unless `keep` is given
  std::int64_t keep = 0;           // experts kept per layer; 0 = by ratio
  std::int64_t keep_multiple = 1;  // round the kept count up to a multiple of this
  std::uint64_t seed = 0;          // of criterion "random"
  bool preserve_super_experts = false;
};

/// One layer of a plan.
struct LayerPlan {
  std::vector<std::int32_t> keep;       // ascending original ids
  std::vector<double> score;            // [experts]
  std::vector<std::int64_t> count;      // [experts]
  double margin = 0;                    // lowest score kept by rank - highest dropped; 0 when nothing is dropped
  std::vector<std::int32_t> preserved;  // super experts kept although their score would have dropped them
};

struct Plan {
  PlanRequest request;
  std::string model_digest;
  std::string model_type;
  std::string calibration_digest;
  std::string compute;  // how the saliency was computed: "fp32" or "bf16"
  std::int64_t block_tokens = 0;
  std::string numerics_id;
  std::int64_t experts = 0;  // before
  std::int64_t kept = 0;     // after, per layer
  std::int64_t top_k = 0;
  std::vector<LayerPlan> layers;
};

std::vector<std::string> criterion_names();

/// How many experts of each layer stay. @throws Error(usage) as make_plan
std::int64_t kept_experts(const PlanRequest& request, std::int64_t experts, std::int64_t top_k);

/// Decides which experts stay. Means are formed once, in fp64; experts with no token rank last; of equal scores the
/// lower id is kept; never fewer than top_k are kept. Source: REAP, arXiv:2510.13999.
/// @throws Error(usage) for an unknown criterion, a ratio outside [0, 1), or a request that would keep fewer than top_k
Plan make_plan(const SaliencyFile& saliency, const PlanRequest& request);

/// Super experts: max|f| above the larger of its 99.5 % quantile over all layers and experts (linear interpolation)
/// and a tenth of its maximum, in layers below floor(0.75 * layers). Returned as [layer, expert] pairs.
std::vector<std::pair<std::int64_t, std::int64_t>> super_experts(const FieldTotals& totals);

/// plan.json (docs/format/plan.md), canonical: the same plan gives the same bytes.
std::string plan_text(const Plan& plan);
Plan parse_plan(const std::string& text, const std::string& what);
/// Writes atomically (temporary name, fsync, rename).
void write_plan(const std::filesystem::path& file, const Plan& plan);
Plan read_plan(const std::filesystem::path& file);

/// A readable table: per layer kept count, lowest kept, highest dropped, margin, starved experts.
std::string plan_table(const Plan& plan);

}  // namespace reap
