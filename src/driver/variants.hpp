#pragma once

#include <string>
#include <vector>

#include "driver/options.hpp"

namespace reap {

/// The criterion of a variant that takes the plan of another one, the best of several by what a sweep measures.
constexpr std::string_view kAutomatic = "auto";

/// One way to prune the model, out of those that a run makes plans for.
struct Variant {
  PlanRequest request;
  std::string name;        // plan_name(request)
  bool candidate = false;  // only there for an automatic one to choose from, and for comparison

  bool automatic() const { return request.criterion == kAutomatic; }
  /// Whether both leave as many experts, by the same words.
  bool as_small_as(const Variant& other) const {
    return request.ratio == other.request.ratio && request.keep == other.request.keep;
  }
};

/// Every criterion with every ratio (or --keep), in the order asked for, then the candidates: those that an automatic
/// criterion chooses from, and REAP beside it.
/// @throws Error(usage) when there is none, one is asked for twice, or something is to be measured without --eval
std::vector<Variant> variants_of(const Options& options);

}  // namespace reap
