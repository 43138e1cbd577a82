#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shard/saliency.hpp"

namespace reap {

/// The squared error of a layer's output when experts are dropped and no token is routed anew, exactly: the sum of G
/// over P x P, for the set P of dropped experts (docs/numerics.md).
struct RemovalOrder {
  std::vector<std::int32_t> expert;  // those that may go, first to go first
  std::vector<double> error;         // beside them: of dropping it and all before it, as a share of the energy of the
                                     // layer's output, which is the error of dropping all
};

/// Greedy: next goes the expert that adds least to the error of those that are gone; before all, experts without
/// tokens; of equals the higher id.
/// @param count   [experts] tokens
/// @param exempt  [experts] who never goes
RemovalOrder removal_order(const Saliency& saliency, std::int64_t layer, std::span<const std::int64_t> count,
                           const std::vector<bool>& exempt);

/// The error of dropping one expert alone, [experts], as a share of the same energy.
std::vector<double> lone_errors(const Saliency& saliency, std::int64_t layer);

/// Shares out one budget over all layers: again and again the layer gives an expert whose next one adds least to its
/// error; of equals the layer of the lower number.
/// @param most    [layers] that each layer can give
/// @param budget  experts to drop in all
/// @return [layers] dropped
/// @throws Error(usage) when all of `most` together are fewer than the budget
std::vector<std::int64_t> share_budget(const std::vector<RemovalOrder>& layers, const std::vector<std::int64_t>& most,
                                       std::int64_t budget);

}  // namespace reap
