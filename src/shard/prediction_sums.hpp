#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/fixed128.hpp"
#include "shard/comm.hpp"

namespace reap {

/// What a model said of a token that came, against what the base model said of it.
struct TokenMeasures {
  double nll;      // natural logarithm
  double kl;       // KL(base || this model)
  double overlap;  // sum of min(p, q)
  bool agrees;     // the same most likely token
};

/// Their means over tokens, each formed once from the exact sum.
struct MeanMeasures {
  std::int64_t predicted = 0;  // tokens; with none, the means are NaN
  double nll = 0, kl = 0, overlap = 0, top1 = 0;
};

/// Exact sums of the measures of models over tokens, [variant, group]: the same bits in whatever order tokens and ranks
/// come. Variant 0 is the base.
class PredictionSums {
 public:
  PredictionSums(std::int64_t variants, std::int64_t groups);

  /// @return false, with nothing added, when a measure is not finite or out of range
  bool add(std::int64_t variant, std::int64_t group, const TokenMeasures& token);
  /// Brings digits to canonical form. A cell holds 2^31 additions before it must be called.
  void normalise();
  /// Adds up the sums of all ranks; normalised before and after. Collective.
  void all_sum(const Comm& world);

  MeanMeasures mean(std::int64_t variant, std::span<const std::int64_t> groups) const;
  /// [variants, groups, kPerCell]: tokens, tokens that agree, then digits of nll, kl and overlap.
  std::span<const std::int64_t> sums() const { return sums_; }
  std::int64_t variants() const { return variants_; }
  std::int64_t groups() const { return groups_; }

 private:
  static constexpr std::int64_t kCounts = 2;
  static constexpr std::int64_t kSums = 3;
  static constexpr std::int64_t kPerCell = kCounts + kSums * kDigits;
  std::int64_t* cell(std::int64_t variant, std::int64_t group) {
    return sums_.data() + (variant * groups_ + group) * kPerCell;
  }

  std::int64_t variants_, groups_;
  std::vector<std::int64_t> sums_;
};

}  // namespace reap
