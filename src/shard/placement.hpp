#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shard/model.hpp"

namespace reap {

/// ranks = pp x ep x dp: pipeline stages x expert shards x data replicas. 0 = to be chosen.
struct Grid {
  int pp = 0, ep = 0, dp = 0;
};

/// A half-open range of layers, experts, ...
struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  bool holds(std::int64_t i) const { return i >= begin && i < end; }
};

/// What one rank of the grid is. Expert shards are neighbours in rank order, then stages, then replicas:
/// rank = (replica * pp + stage) * ep + shard.
struct Placement {
  Grid grid;
  int stage = 0, shard = 0, replica = 0;
  Range layers;   // of this stage
  Range experts;  // of this shard, in every layer
  /// Blocks are dealt to the dp * ep columns in turn: block b belongs to column b mod columns().
  int columns() const { return grid.dp * grid.ep; }
  int column() const { return replica * grid.ep + shard; }
};

/// Whether the ranks hold all their layers at once, or one at a time; automatic: all when they fit.
enum class WeightsMode : std::uint8_t { automatic, resident, stream };

/// How a rank of the grid holds weights and hidden states during a calibration pass; the same on every rank.
struct Holding {
  bool streamed = false;
  /// Streamed: bytes of weights in memory at a time, at least one layer's; what is beyond serves reading ahead.
  std::int64_t weight_window = 0;
  /// Streamed: rows of hidden states that each column carries through a layer before the next layer is loaded, at least
  /// the longest block. In memory, or in the scratch folder.
  std::int64_t wave_rows = 0;
};

/// The experts of shard `shard`: a balanced contiguous split. The owner of any expert follows from it.
Range expert_range(std::int64_t experts, int ep, int shard);
Range layer_range(std::int64_t layers, int pp, int stage);

/// Every grid of exactly `ranks` ranks, as asked, in which each rank has layers, experts and blocks; preferred() ones
/// first.
std::vector<Grid> usable_grids(const Model& model, int ranks, const Grid& asked, std::int64_t blocks);
/// The same. @throws Error(usage) when there is none, listing the grids that can be used
std::vector<Grid> grids_or_fail(const Model& model, int ranks, const Grid& asked, std::int64_t blocks);

/// Whether `a` is to be taken before `b` where nothing else decides: more replicas, which need no traffic at all, then
/// more stages, whose traffic is one hand-over per block.
bool preferred(const Grid& a, const Grid& b);

std::string text_of(const Grid& grid);

/// The place of `rank` in the grid.
Placement place(const Model& model, const Grid& grid, int rank);

/// Bytes of weights that a rank of this grid holds at most: as stored, but F32 as bf16 where it is computed in that.
std::int64_t weight_bytes_per_rank(const Model& model, const Grid& grid, Compute compute);

}  // namespace reap
