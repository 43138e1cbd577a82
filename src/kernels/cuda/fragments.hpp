#pragma once

// Which thread holds and reads what: index maps of ldmatrix and mma.m16n8k16 (PTX ISA, "Matrix Fragments for
// mma.m16n8k16 with floating point type" and "Warp-level matrix load instruction: ldmatrix") and of the swizzled tiles
// in shared memory. Plain C++, so that a test without a GPU can go through all of them.

namespace reap::cuda {

// A chunk is what cp.async and ldmatrix move at a time: 16 bytes.
constexpr int kChunkBytes = 16;
constexpr int kChunkElements = 8;  // of bf16

/// Byte offset of a chunk in a tile of rows of `Chunks` chunks. Eight consecutive rows read at one chunk, as ldmatrix
/// does, touch each of the 32 banks once. For rows of 8 chunks at a multiple of 1024 bytes this is the 128-byte swizzle
/// of wgmma's matrix descriptors (PTX ISA, "Shared Memory Matrix Layout").
template <int Chunks>
constexpr int swizzled(int row, int chunk) {
  static_assert(Chunks == 4 || Chunks % 8 == 0);
  const int mixed = Chunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7);
  return (row * Chunks + mixed) * kChunkBytes;
}

struct RowChunk {
  int row;
  int chunk;
};

/// Where a lane points ldmatrix.x4 for the A fragment of a 16 x 16 tile stored [m][k]; with .trans, for two B fragments
/// (16 k by 16 n) stored [k][n]: registers 0 and 1 belong to the first 8 columns.
constexpr RowChunk a_source(int lane) { return {lane & 15, lane >> 4}; }

/// Where a lane points ldmatrix.x4 for two B fragments (16 k by 16 n) stored [n][k].
constexpr RowChunk b_source(int lane) { return {(lane & 7) + (lane >> 4) * 8, lane >> 3 & 1}; }

/// Row and column of accumulator register `index` (0..3) in its 16 x 8 tile.
constexpr int accumulator_row(int lane, int index) { return lane / 4 + index / 2 * 8; }
constexpr int accumulator_col(int lane, int index) { return lane % 4 * 2 + index % 2; }

}  // namespace reap::cuda
