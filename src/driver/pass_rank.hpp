#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "driver/commands.hpp"
#include "driver/device.hpp"
#include "driver/pass_setup.hpp"
#include "driver/planner.hpp"
#include "driver/source.hpp"
#include "shard/pipeline.hpp"

namespace reap {

/// How this rank takes part in a pass: its place in the grid that was chosen, and what it computes on.
struct PassRank {
  Device device;
  int threads = 1;
  PassSetup setup;
  Holding holding;
  Placement placement;
  std::unique_ptr<Backend> backend;
  ConnectDevices connect;  // empty = MPI

  /// The pass over the blocks of `setup`. What it refers to, this included, has to outlive it.
  PassPlan plan(const Source& source, const Samples& samples, const Options& options) const;
  std::string describe() const;
};

/// Chooses devices, grid and holding for a pass over `samples`; all ranks compute the same bits. Collective.
/// @param evaluated  variants of the model that are evaluated (Workload::evaluated); 0 = a calibration pass
/// @param compared   whether they are compared with another model (Workload::compared)
/// @throws SharedError(usage) when nothing fits, SharedError(bad_input) when ranks would compute other bits
PassRank all_join_pass(Job& job, const Model& model, const Samples& samples, std::int64_t evaluated,
                       bool compared = false);

/// Fails now where such a pass could not begin hours later. Collective. @throws as all_join_pass
void all_check_pass(Job& job, const Model& model, const Samples& samples, std::int64_t evaluated, bool compared);

/// Fails now where the file could not be written after hours of computing. @throws Error(io)
void check_writable(const std::filesystem::path& file);

}  // namespace reap
