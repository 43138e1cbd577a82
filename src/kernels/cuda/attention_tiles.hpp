#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// How the blocks of a launch share out the queries of a packed batch. Plain C++, so that a test without a GPU can go
// through all of it.

namespace reap::cuda {

/// Samples of one launch: the list travels as a kernel parameter (see expert_tiles.hpp).
constexpr int kMostSamples = 1024;

/// Samples of a launch, longest first, each cut into tiles of queries that begin at its own first row: what a row is
/// computed with does not depend on its neighbours in the batch.
struct SampleTiles {
  int samples;
  std::int64_t row[kMostSamples];             // first row in the batch
  std::int32_t length[kMostSamples];          // at least 1
  std::int32_t first_tile[kMostSamples + 1];  // tiles before each sample
};

/// The launches of a batch: as many as it takes to list every sample that has rows.
/// @param start  [samples + 1] first row of each sample, then the number of rows
inline std::vector<SampleTiles> sample_tiles(std::span<const std::int64_t> start, int tile_queries) {
  const auto length = [&](std::size_t sample) { return start[sample + 1] - start[sample]; };
  std::vector<std::size_t> order;
  for (std::size_t sample = 0; sample + 1 < start.size(); ++sample) {
    if (length(sample) > 0) order.push_back(sample);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return length(a) > length(b); });
  std::vector<SampleTiles> launches;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i % kMostSamples == 0) launches.emplace_back();
    SampleTiles& tiles = launches.back();
    tiles.row[tiles.samples] = start[order[i]];
    tiles.length[tiles.samples] = static_cast<std::int32_t>(length(order[i]));
    const auto count = static_cast<std::int32_t>((length(order[i]) + tile_queries - 1) / tile_queries);
    tiles.first_tile[tiles.samples + 1] = tiles.first_tile[tiles.samples] + count;
    ++tiles.samples;
  }
  return launches;
}

/// One block's queries.
struct QueryTile {
  std::int64_t row;  // first row of the sample
  int length;        // of the sample
  int query;         // first query, within the sample
};

/// Tile `index` of the launch. A sample's last tile, which sees the most keys, comes first: short ones even out the
/// end.
constexpr QueryTile query_tile(const SampleTiles& tiles, int tile_queries, int index) {
  int low = 0, high = tiles.samples;  // first_tile[low] <= index < first_tile[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (tiles.first_tile[middle] <= index) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int from_end = tiles.first_tile[low + 1] - 1 - index;
  return {tiles.row[low], tiles.length[low], from_end * tile_queries};
}

}  // namespace reap::cuda
