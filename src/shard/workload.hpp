#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/model.hpp"
#include "shard/saliency.hpp"
#include "shard/samples.hpp"

namespace reap {

/// What a pass is over and how it computes, as far as memory and time depend on it.
struct Workload {
  std::vector<Block> blocks;
  std::int64_t longest_sample = 0;  // tokens
  double mean_context = 0;          // tokens that a token attends to, itself included
  std::int64_t groups = 0;
  Compute compute = Compute::bf16;
  CpuIsa isa = CpuIsa::automatic;
  int threads = 1;             // per rank
  bool scratch = false;        // hidden states of a wave lie in a file
  Collected collected = {};    // by a calibration pass
  std::int64_t evaluated = 0;  // variants of the model whose predictions are compared; 0 = a calibration pass
  bool compared = false;       // and they are with those of another model, whose final hidden states are kept

  std::int64_t variants() const { return evaluated == 0 ? 1 : evaluated; }

  std::int64_t tokens() const;
  std::int64_t max_rows() const;  // of the longest block
  /// Rows of the column that has most of them, in all variants, when blocks are dealt to `columns` in turn.
  std::int64_t column_rows(int columns) const;
};

/// The blocks of `samples`, with the defaults for how they are computed.
Workload workload_of(const Samples& samples, std::int64_t block_tokens);

/// Floating point operations of the forward pass per token and layer: products of the projections, the routed experts
/// and the router, and attention over the mean context.
double layer_flops_per_token(const Model& model, double mean_context);
/// Those of the output projection.
double head_flops_per_token(const Model& model);

}  // namespace reap
