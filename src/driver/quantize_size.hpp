#pragma once

#include <cstdint>

#include "driver/quantize_options.hpp"
#include "shard/model.hpp"

namespace reap {

/// Bytes of all tensors of the model with `kept` experts per layer and weights of 4 bits, from its description alone:
/// without MTP tensors, the router in fp32, the rest as config.json says. Excluded layers count as rounded.
std::int64_t quantised_bytes(const Model& model, std::int64_t kept, const QuantizeOptions& options);

}  // namespace reap
