#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace reap {

/// The experts of one layer as a criterion sees them, in all samples and in each half of them.
struct LayerScores {
  std::span<const double> score;                // [experts]
  std::span<const std::int64_t> count;          // [experts] tokens
  std::span<const double> half_score[2];        // [experts]
  std::span<const std::int64_t> half_count[2];  // [experts]
};

/// What the difference of the halves says about a cut (docs/numerics.md, "Noise at the cut").
struct CutNoise {
  double dispersion = 0;         // squared relative standard error of a score, times the expert's tokens
  double changes = 0;            // kept experts that unlimited samples are expected to exchange for dropped ones
  std::optional<double> margin;  // lowest kept minus highest dropped score in standard errors; none without noise
};

/// @param kept  how many stay
/// @return nothing when too few experts have tokens enough in both halves to tell
std::optional<CutNoise> cut_noise(const LayerScores& layer, std::int64_t kept);

}  // namespace reap
