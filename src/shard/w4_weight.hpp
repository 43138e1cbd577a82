#pragma once

#include <string>
#include <vector>

#include "shard/checkpoint.hpp"
#include "shard/model.hpp"

namespace reap {

/// Whether the weight of that name is held in 4 bits; where a model is, some of its layers may not be.
bool is_w4(const Checkpoint& checkpoint, const Model& model, const std::string& weight_name);

/// A 4-bit weight, expanded to fp32: q * scale, which is exact.
struct ExpandedWeight {
  std::vector<float> values;  // [rows, cols]
  std::int64_t rows = 0, cols = 0;
};

/// Reads it. @throws Error(bad_input) when its zero points or groups are not those of symmetric weights, Error(io)
ExpandedWeight read_w4(const Checkpoint& checkpoint, const Model& model, const std::string& weight_name);

/// Weights in it.
std::int64_t w4_elements(const Checkpoint& checkpoint, const Model& model, const std::string& weight_name);

}  // namespace reap
