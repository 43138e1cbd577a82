#pragma once

#include <cstdint>

#include "shard/model.hpp"
#include "shard/placement.hpp"
#include "shard/workload.hpp"

namespace reap {

/// Bytes by which a rank grows at most during a pass, the most of any rank of the grid. Not counted is what
/// the program takes before it: MPI's buffers, the headers of the checkpoint.
struct Footprint {
  std::int64_t program = 0;  // code of the libraries once it is used, products compiled at run time, stacks
  std::int64_t weights = 0;  // resident: the own layers and the embedding; streamed: the window
  std::int64_t reading = 0;  // tensors on their way from the files
  std::int64_t forward = 0;  // the longest block in the operations of a layer
  std::int64_t links = 0;    // blocks between stages, rows between expert shards
  std::int64_t hidden = 0;   // streamed: the hidden states of a wave
  std::int64_t sums = 0;     // of the own layers and, in the end, of all
  std::int64_t head = 0;     // evaluation: the output projection, logits, final hidden states of a block's variants
  std::int64_t total() const { return program + weights + reading + forward + links + hidden + sums + head; }
};

/// With expert shards the router is taken to spread its slots evenly over them.
Footprint footprint_of(const Model& model, const Grid& grid, const Workload& work, const Holding& holding);

/// The weights of one layer on the rank that has most experts of it.
std::int64_t layer_bytes(const Model& model, const Grid& grid, const Workload& work);
/// The largest part of it that is read in one go: attention and router, or one expert.
std::int64_t piece_bytes(const Model& model, const Workload& work);
/// What is collected besides the fields (Collected), in memory as in a saliency file.
std::int64_t collected_bytes(const Model& model, const Workload& work);
/// Most layers of any stage.
std::int64_t most_layers(const Model& model, const Grid& grid);

}  // namespace reap
