#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/machine.hpp"
#include "driver/time_estimate.hpp"
#include "shard/footprint.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/workload.hpp"

namespace reap {

/// What the planner chooses for. Equal on all ranks, so is the choice.
struct PlanningTask {
  const Model& model;
  const Workload& work;
  const Machine& machine;
  int ranks = 1;
  Grid asked;  // 0 = to be chosen
  WeightsMode weights = WeightsMode::automatic;
  std::int64_t memory_bytes = 0;  // the least of any rank; 0 = unknown, and all fits
};

/// A way to run a calibration pass: a grid, and how its ranks hold weights.
struct Candidate {
  Grid grid;
  Holding holding;
  Footprint need;
  bool fits = false;
  std::int64_t waves = 1;
  PassTime time;
};

/// All grids as asked, each with resident and with streamed weights as asked. Those that fit come first, then the
/// quickest; of equals the one with more replicas, then more stages.
/// @throws Error(usage) when the ranks cannot be used, listing the grids that can
std::vector<Candidate> candidates(const PlanningTask& task);

/// The one to run: the quickest resident one that fits unless streaming is asked for, else the quickest streamed one.
/// @throws Error(usage) when nothing fits, saying what would
Candidate choose_candidate(const PlanningTask& task);

/// choose_candidate() from candidates(task), or null when none fits.
const Candidate* chosen_of(const std::vector<Candidate>& all);

/// What none of candidates(task) fits, and what would.
std::string why_nothing_fits(const PlanningTask& task, std::vector<Candidate> all);

}  // namespace reap
