#include "shard/final_states.hpp"

#include <numeric>
#include <vector>

namespace reap {
namespace {

/// Rows of the blocks that this rank takes through the last layer, in their order.
std::vector<std::int64_t> own_rows(const PassPlan& plan) {
  std::vector<std::int64_t> rows;
  if (plan.placement.layers.end < plan.model.layers) return rows;
  for (const Block& block : plan.blocks) {
    if (block.index % plan.placement.columns() == plan.placement.column()) rows.push_back(block.rows());
  }
  return rows;
}

std::int64_t sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

}  // namespace

FinalStates::FinalStates(const PassPlan& plan, Backend& backend)
    : columns_{plan.placement.columns()}, states_{backend, sum(own_rows(plan)), plan.model.hidden, plan.scratch} {
  states_.begin(own_rows(plan));
}

}  // namespace reap
