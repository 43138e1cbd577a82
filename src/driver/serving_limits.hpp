#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "driver/quantize_options.hpp"
#include "shard/model.hpp"

namespace reap {

/// How a 4-bit output will be served.
struct Serving {
  std::int64_t tensor_parallel = 1;
  std::int64_t expert_parallel = 1;
};

/// The largest group of 128, 64 and 32 inputs that the model's layers can be cut into, whole on every rank of tensor
/// parallelism; nothing when none is.
std::optional<std::int64_t> largest_group(const Model& model, bool attention, const Serving& serving);

/// Refuses outputs that could not be stored or that engines could not serve: groups that do not divide the inputs of a
/// layer or of its share under tensor parallelism, experts that do not divide under expert parallelism, layers that
/// engines take together of which some are excluded and others not.
/// @param experts  per layer, in the output
/// @throws Error(bad_input), Error(usage)
void check_serving(const QuantizeOptions& options, const Model& model, std::int64_t experts, const Serving& serving);

/// What to tell the user about an output that is served more slowly than it might be; one line each.
std::vector<std::string> serving_advice(const Model& model);

}  // namespace reap
