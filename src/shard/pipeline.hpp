#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/cut.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/pulse.hpp"
#include "shard/saliency.hpp"
#include "shard/samples.hpp"
#include "shard/snapshot.hpp"

namespace reap {

/// What a calibration pass is over, and how. The references outlive the pass.
struct PassPlan {
  const Checkpoint& checkpoint;
  const Model& model;
  const Placement& placement;
  const Samples& samples;
  const std::vector<Block>& blocks;
  Holding holding = {};
  std::filesystem::path scratch = {};  // folder for hidden states of a wave; empty = in memory
  StartingPoint start = {};
  std::function<std::unique_ptr<Backend>()> make_backend = {};  // streamed: one more, for the thread that reads weights
};

/// Told what this rank has just done, and asked what it shall do. Any member may be empty.
struct PassEvents {
  std::function<void(std::int64_t bytes)> layer_read;  // streamed: not called
  std::function<void(const Block& block)> layer_done;  // a block went through one layer of this rank
  std::function<void(const Block& block)> block_done;  // a block left the last layer of the model on this rank
  Cut::Wishes wishes;
  /// Collective: saves the pass at a cut. @param own  the blocks inside the model that this rank has
  std::function<void(const Snapshot& snapshot, const std::vector<HeldBlock>& own)> all_save;
};

/// The calibration pass of this rank: takes the blocks of its column through its layers, hands them on to the next
/// stage, and returns the field sums of all ranks, normalised and checked. Collective over `world`.
/// Errors of loading are shared by all ranks; an error of the pass itself is thrown on the rank that it happened on
/// while the others wait for it: the caller has to end the whole job (MPI_Abort).
/// @throws Error(numerics) naming layer, expert and sample; Error(bad_input), Error(io), Error(peer);
///         SharedError(stopped) when a rank wished to stop and the state is saved, or weights were still being read
Saliency all_observe(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend,
                     const PassEvents& events = {});

}  // namespace reap
