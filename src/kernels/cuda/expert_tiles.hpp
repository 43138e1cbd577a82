#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// How the blocks of one launch share out a grouped product: out[slot, :] = input[slot, :] W_e^T, where slots are
// grouped by expert e. Plain C++, so that a test without a GPU can go through all of it.

namespace reap::cuda {

/// Experts of one launch: the list travels as a kernel parameter, of which there may be 32,764 bytes (CUDA C++
/// Programming Guide, "__global__ function parameters"). No copy to the device, so nothing to wait for.
constexpr int kMostExperts = 256;

/// The slots of up to kMostExperts consecutive experts, cut into tiles that begin at each expert's first slot.
struct ExpertTiles {
  int experts;
  std::int64_t start[kMostExperts + 1];       // first slot of each expert
  std::int32_t first_tile[kMostExperts + 1];  // tiles of slots before each expert
};

/// @param start  [experts + 1] first slot of each expert; at most kMostExperts of them
constexpr ExpertTiles expert_tiles(std::span<const std::int64_t> start, int tile_slots) {
  ExpertTiles tiles{};
  tiles.experts = static_cast<int>(start.size()) - 1;
  tiles.start[0] = start[0];
  for (int e = 0; e < tiles.experts; ++e) {
    const std::int64_t slots = start[static_cast<std::size_t>(e) + 1] - tiles.start[e];
    tiles.start[e + 1] = tiles.start[e] + slots;
    tiles.first_tile[e + 1] = tiles.first_tile[e] + static_cast<std::int32_t>((slots + tile_slots - 1) / tile_slots);
  }
  return tiles;
}

/// One block's part of the product.
struct ExpertTile {
  int expert;
  std::int64_t slot;  // first
  int slots;          // 1 to tile_slots
  int column;         // tile of columns
};

/// The tile of block `block` of tiles * column_tiles. An expert's blocks follow each other, and among them those of one
/// tile of columns: they read the same weights.
constexpr ExpertTile expert_tile(const ExpertTiles& tiles, int tile_slots, int column_tiles, std::int64_t block) {
  int low = 0, high = tiles.experts;  // first_tile[low] * column_tiles <= block < first_tile[high] * column_tiles
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (static_cast<std::int64_t>(tiles.first_tile[middle]) * column_tiles <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int count = tiles.first_tile[low + 1] - tiles.first_tile[low];
  const int local = static_cast<int>(block - static_cast<std::int64_t>(tiles.first_tile[low]) * column_tiles);
  const std::int64_t slot = tiles.start[low] + static_cast<std::int64_t>(local % count) * tile_slots;
  const std::int64_t left = tiles.start[low + 1] - slot;
  return {low, slot, static_cast<int>(left < tile_slots ? left : tile_slots), local / count};
}

/// A row of the tile of weights that a block multiplies by: of which matrix, and which of the tile's columns it makes.
struct WeightRow {
  int matrix;
  int column;
};

/// One matrix: tile row r makes column r. Two, whose columns meet in silu(W1 x) * (W3 x): 16 rows of one alternate with
/// the same 16 of the other, so that both land in the same thread of any warp that takes 32 rows.
constexpr WeightRow weight_row(int matrices, int row) {
  if (matrices == 1) return {0, row};
  return {row >> 4 & 1, (row >> 5) * 16 + (row & 15)};
}

}  // namespace reap::cuda
