#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/block.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/cut.hpp"
#include "shard/link_device.hpp"
#include "shard/masks.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/pulse.hpp"
#include "shard/samples.hpp"
#include "shard/snapshot.hpp"

namespace reap {

/// What a pass is over, and how. The references outlive the pass.
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
  ConnectDevices connect = {};  // by which hidden states travel between ranks; empty = through host memory, by MPI
  std::vector<KeptExperts> variants = {{}};  // every block goes through the model once in each
  Collected collected = {};                  // by a calibration pass, besides the fields
};

/// Told what this rank has just done, and asked what it shall do. Any member may be empty.
struct PassEvents {
  std::function<void(std::int64_t bytes)> layer_read;  // streamed: not called
  std::function<void(const Block& block)> layer_done;  // a block went through one layer of this rank, in one variant
  std::function<void(const Block& block)> block_done;  // it left the last layer of the model on this rank
  Cut::Wishes wishes;
  /// Collective: saves the pass at a cut. @param own  the blocks inside the model that this rank has
  std::function<void(const Snapshot& snapshot, const std::vector<HeldBlock>& own)> all_save;
};

/// What becomes of what a pass computes on this rank. Pointers are to the backend's memory, and valid for the call.
class PassSink {
 public:
  virtual ~PassSink() = default;
  /// Before each operation on a layer, also on ranks that have no block in it: where squares of inputs are added.
  virtual InputSums inputs(std::int64_t layer);
  /// A block has been through a layer, in some variant.
  virtual void layer(std::int64_t layer, const BlockRows& rows, const LayerTrace& trace);
  /// A block has been through the last layer of the model. Its variants come in their order, one after the other.
  /// @param x  [rows, hidden] before the final norm
  virtual void last(const Block& block, std::int64_t variant, const BlockRows& rows, const float* x);
  /// Adds the sums over all ranks so far to what is to be saved, or to the result. Collective.
  virtual void all_sum(Snapshot& snapshot);
};

/// A pass of this rank: takes the blocks of its column through its layers and hands them on to the next stage.
/// Collective over `world`. @return what the sink has summed
/// Errors of loading are shared by all ranks; an error of the pass itself is thrown on the rank that it happened on
/// while the others wait for it: the caller has to end the whole job (MPI_Abort).
/// @throws Error(bad_input), Error(io), Error(peer), and what the sink throws;
///         SharedError(stopped) when a rank wished to stop and the state is saved, or weights were still being read
Snapshot all_pass(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend, PassSink& sink,
                  const PassEvents& events = {});

}  // namespace reap
