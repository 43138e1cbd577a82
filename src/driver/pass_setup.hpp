#pragma once

#include <cstdint>

#include "driver/machine.hpp"
#include "driver/options.hpp"
#include "driver/planner.hpp"
#include "driver/resources.hpp"
#include "shard/comm.hpp"
#include "shard/samples.hpp"
#include "shard/workload.hpp"

namespace reap {

/// What the planner decides by, the same on every rank of a job.
struct PassSetup {
  Workload work;
  Machine machine;
  std::int64_t memory_bytes = 0;  // per rank, the least of any

  PlanningTask task(const Model& model, int ranks, const Options& options) const {
    return {model, work, machine, ranks, options.grid, options.weights, memory_bytes};
  }
};

/// From the options and what the ranks have. Collective. @throws SharedError
PassSetup all_set_up(const Comm& world, const Options& options, const Samples& samples, const Resources& resources);

}  // namespace reap
