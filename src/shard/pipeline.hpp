#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/saliency.hpp"
#include "shard/samples.hpp"

namespace reap {

/// Told what this rank has just done. Any member may be empty.
struct PipelineEvents {
  std::function<void(std::int64_t layers_loaded, std::int64_t bytes)> layer_loaded;
  std::function<void(const Block& block)> block_done;  // a block of this rank's column left this rank's last layer
};

/// The calibration pass of this rank: loads its layers, takes the blocks of its column through them, hands them
/// on to the next stage, and returns the field sums of all ranks, normalised and checked. Collective over `world`.
/// Errors of loading are shared by all ranks; an error of the pass itself is thrown on the rank that it happened on
/// while the others wait for it: the caller has to end the whole job (MPI_Abort).
/// @throws Error(numerics) naming layer, expert and sample; Error(bad_input), Error(io), Error(peer)
Saliency all_observe(const Comm& world, const Checkpoint& checkpoint, const Model& model, const Placement& placement,
                     const Samples& samples, const std::vector<Block>& blocks, Backend& backend,
                     const PipelineEvents& events);

}  // namespace reap
