#pragma once

#include <cstdint>

#include "driver/machine.hpp"
#include "shard/footprint.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/workload.hpp"

namespace reap {

/// Seconds of the phases of a calibration pass, on the rank that all others end up waiting for. docs/estimate.md holds
/// the formulas.
struct PassTime {
  double load = 0;      // weights, before the first block
  double compute = 0;   // the operations of the blocks
  double exchange = 0;  // slots between expert shards, and blocks between stages that computing does not hide
  double reading = 0;   // streamed: weights and hidden states that computing does not hide
  double filling = 0;   // until the last stage has its first block
  double total() const { return load + compute + exchange + reading + filling; }
};

/// Rounds of loading all own layers: 1 when resident.
std::int64_t waves_of(const Workload& work, const Grid& grid, const Holding& holding);

PassTime pass_time(const Model& model, const Grid& grid, const Workload& work, const Holding& holding,
                   const Machine& machine);

/// Seconds for writing `bytes` of pruned models on `ranks` ranks and, if asked for, proving them: each byte is read
/// from the source and written, then both copies are read.
double output_time(double bytes, int ranks, bool verify, const Machine& machine);

}  // namespace reap
