// The index maps of the CUDA kernels, gone through on the host: no GPU is needed.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "kernels/cuda/attention_tiles.hpp"
#include "kernels/cuda/expert_tiles.hpp"
#include "kernels/cuda/fragments.hpp"

namespace reap::cuda {
namespace {

constexpr int kWarp = 32;

template <int Chunks>
void expect_swizzle_without_conflicts() {
  constexpr int kRows = 64;
  std::set<int> offsets;
  for (int row = 0; row < kRows; ++row) {
    for (int chunk = 0; chunk < Chunks; ++chunk) {
      const int offset = swizzled<Chunks>(row, chunk);
      EXPECT_EQ(offset % kChunkBytes, 0);
      EXPECT_EQ(offset / kChunkBytes / Chunks, row) << "a chunk leaves its row";
      offsets.insert(offset);
    }
  }
  EXPECT_EQ(offsets.size(), static_cast<std::size_t>(kRows * Chunks));
  for (int row = 0; row < kRows; row += 8) {
    for (int chunk = 0; chunk < Chunks; ++chunk) {
      std::set<int> banks;  // groups of four
      for (int i = 0; i < 8; ++i) banks.insert(swizzled<Chunks>(row + i, chunk) / kChunkBytes % 8);
      EXPECT_EQ(banks.size(), 8U) << Chunks << " chunks, row " << row << ", chunk " << chunk;
    }
  }
}

TEST(CudaFragments, SwizzledTilesHaveNoHolesAndNoBankConflicts) {
  expect_swizzle_without_conflicts<4>();
  expect_swizzle_without_conflicts<8>();
  expect_swizzle_without_conflicts<16>();
  expect_swizzle_without_conflicts<32>();
}

TEST(CudaFragments, RowsOf128BytesHaveTheSwizzleOfMatrixDescriptors) {
  // Bits 4 to 6 of an address are XORed with bits 7 to 9 (PTX ISA, "Swizzling Modes", 128B).
  for (int row = 0; row < 128; ++row) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      const int plain = row * 128 + chunk * 16;
      EXPECT_EQ(swizzled<8>(row, chunk), plain ^ (plain >> 3 & 0x70));
    }
  }
}

using Pair = std::array<int, 2>;
using Fragment = std::array<std::array<Pair, 4>, kWarp>;  // [lane][register]
using Accumulators = std::array<std::array<int, 4>, kWarp>;
using Matrix = std::array<std::array<int, 16>, 16>;

/// ldmatrix.x4: lane 8 m + r names row r of tile m; of tile m, lane l gets elements 2 (l mod 4) and the next of row
/// l / 4, or, transposed, of column l / 4.
Fragment ldmatrix(const Matrix& stored, RowChunk (*source)(int), bool transposed) {
  Fragment words{};
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int tile = 0; tile < 4; ++tile) {
      for (int element = 0; element < 2; ++element) {
        const int along = lane % 4 * 2 + element, across = lane / 4;
        const RowChunk at = source(tile * 8 + (transposed ? along : across));
        words[lane][tile][element] = stored[at.row][at.chunk * 8 + (transposed ? across : along)];
      }
    }
  }
  return words;
}

/// mma.m16n8k16 by the layouts of the PTX ISA; b0 and b1 are registers of `b`.
Accumulators mma(const Fragment& a, const Fragment& b, int b0) {
  int left[16][16], right[16][8], product[16][8] = {};
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int element = 0; element < 2; ++element) {
      for (int i = 0; i < 4; ++i) left[lane / 4 + i % 2 * 8][lane % 4 * 2 + element + i / 2 * 8] = a[lane][i][element];
      for (int i = 0; i < 2; ++i) right[lane % 4 * 2 + element + i * 8][lane / 4] = b[lane][b0 + i][element];
    }
  }
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < 16; ++k) product[m][n] += left[m][k] * right[k][n];
    }
  }
  Accumulators sums{};
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) sums[lane][i] = product[lane / 4 + (i >= 2 ? 8 : 0)][lane % 4 * 2 + (i & 1)];
  }
  return sums;
}

Matrix random_matrix(unsigned seed) {
  std::mt19937 random(seed);
  Matrix matrix{};
  for (auto& row : matrix) {
    for (int& value : row) value = static_cast<int>(random() % 19) - 9;
  }
  return matrix;
}

/// 16 x 16 from two products of 8 columns.
Matrix gathered(const Accumulators& first, const Accumulators& second) {
  Matrix out{};
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      out[accumulator_row(lane, i)][accumulator_col(lane, i)] = first[lane][i];
      out[accumulator_row(lane, i)][8 + accumulator_col(lane, i)] = second[lane][i];
    }
  }
  return out;
}

TEST(CudaFragments, WarpsMultiplyByRowsOfWeights) {
  const Matrix x = random_matrix(1), w = random_matrix(2);
  const Fragment a = ldmatrix(x, a_source, false), b = ldmatrix(w, b_source, false);
  const Matrix got = gathered(mma(a, b, 0), mma(a, b, 2));
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int expected = 0;
      for (int k = 0; k < 16; ++k) expected += x[m][k] * w[n][k];
      ASSERT_EQ(got[m][n], expected) << m << " " << n;
    }
  }
}

TEST(CudaFragments, AccumulatorsAreTheNextProductsRows) {
  // Attention: p = q k^T stays in registers and multiplies v, which is stored [key][dimension].
  const Matrix q = random_matrix(1), k = random_matrix(2), v = random_matrix(3);
  const Fragment a = ldmatrix(q, a_source, false), b = ldmatrix(k, b_source, false);
  const Accumulators low = mma(a, b, 0), high = mma(a, b, 2);
  Fragment p{};
  for (int lane = 0; lane < kWarp; ++lane) {
    p[lane] = {Pair{low[lane][0], low[lane][1]}, Pair{low[lane][2], low[lane][3]}, Pair{high[lane][0], high[lane][1]},
               Pair{high[lane][2], high[lane][3]}};
  }
  const Fragment values = ldmatrix(v, a_source, true);
  const Matrix got = gathered(mma(p, values, 0), mma(p, values, 2));
  for (int m = 0; m < 16; ++m) {
    for (int d = 0; d < 16; ++d) {
      int expected = 0;
      for (int key = 0; key < 16; ++key) {
        for (int i = 0; i < 16; ++i) expected += q[m][i] * k[key][i] * v[key][d];
      }
      ASSERT_EQ(got[m][d], expected) << m << " " << d;
    }
  }
}

void expect_every_slot_once(const std::vector<std::int64_t>& start, int tile_slots, int column_tiles) {
  const ExpertTiles tiles = expert_tiles(start, tile_slots);
  const auto columns = static_cast<std::size_t>(column_tiles);
  std::vector<int> visits(static_cast<std::size_t>(start.back() - start.front()) * columns, 0);
  const std::int64_t blocks = std::int64_t{tiles.first_tile[tiles.experts]} * column_tiles;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const ExpertTile tile = expert_tile(tiles, tile_slots, column_tiles, block);
    ASSERT_TRUE(tile.expert >= 0 && tile.expert < tiles.experts);
    const auto expert = static_cast<std::size_t>(tile.expert);
    ASSERT_GE(tile.slot, start[expert]);
    ASSERT_LE(tile.slot + tile.slots, start[expert + 1]);
    ASSERT_EQ((tile.slot - start[expert]) % tile_slots, 0) << "a slot's place in its tile depends on other experts";
    ASSERT_TRUE(tile.slots >= 1 && tile.slots <= tile_slots);
    ASSERT_TRUE(tile.column >= 0 && tile.column < column_tiles);
    for (int i = 0; i < tile.slots; ++i) {
      ++visits[static_cast<std::size_t>(tile.slot + i - start.front()) * columns +
               static_cast<std::size_t>(tile.column)];
    }
  }
  EXPECT_TRUE(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; }));
}

TEST(CudaExpertTiles, MakeEverySlotAndColumnOnce) {
  for (const int columns : {1, 3, 24}) {
    expect_every_slot_once({0, 0, 1, 16, 32, 49, 49, 176, 305, 305}, 128, columns);
    expect_every_slot_once({7, 7}, 128, columns);  // no slots: no blocks
    expect_every_slot_once({1000, 1128, 1129}, 128, columns);
    std::mt19937 random(5);
    std::vector<std::int64_t> start{12};
    for (int e = 0; e < kMostExperts; ++e) start.push_back(start.back() + (random() % 3 ? random() % 300 : 0));
    expect_every_slot_once(start, 64, columns);
  }
}

TEST(CudaExpertTiles, RowsOfTwoMatricesMeetInOneThread) {
  for (const int matrices : {1, 2}) {
    std::set<std::pair<int, int>> made;
    for (int row = 0; row < 128; ++row) {
      const WeightRow source = weight_row(matrices, row);
      EXPECT_TRUE(source.column >= 0 && source.column < 128 / matrices);
      made.emplace(source.matrix, source.column);
      // A thread that copies every 32nd row steps through one matrix evenly.
      const WeightRow later = weight_row(matrices, row + 32);
      EXPECT_EQ(later.matrix, source.matrix);
      EXPECT_EQ(later.column, source.column + 32 / matrices);
    }
    EXPECT_EQ(made.size(), 128U);
  }
  for (int row = 0; row < 128; ++row) {
    if (row % 32 >= 16) continue;
    EXPECT_EQ(weight_row(2, row).matrix, 0);
    EXPECT_EQ(weight_row(2, row + 16).matrix, 1);
    EXPECT_EQ(weight_row(2, row + 16).column, weight_row(2, row).column);
  }
}

void expect_every_query_once(const std::vector<std::int64_t>& lengths, int tile_queries, std::size_t launches) {
  std::vector<std::int64_t> start{0};
  for (const std::int64_t length : lengths) start.push_back(start.back() + length);
  std::vector<int> visits(static_cast<std::size_t>(start.back()), 0);
  const std::vector<SampleTiles> all = sample_tiles(start, tile_queries);
  EXPECT_EQ(all.size(), launches);
  for (const SampleTiles& tiles : all) {
    for (int index = 0; index < tiles.first_tile[tiles.samples]; ++index) {
      const QueryTile tile = query_tile(tiles, tile_queries, index);
      const auto sample = std::lower_bound(start.begin(), start.end(), tile.row + 1) - start.begin() - 1;
      ASSERT_EQ(start[static_cast<std::size_t>(sample)], tile.row);
      ASSERT_EQ(start[static_cast<std::size_t>(sample) + 1], tile.row + tile.length);
      ASSERT_EQ(tile.query % tile_queries, 0);
      ASSERT_TRUE(tile.query >= 0 && tile.query < tile.length);
      for (int i = 0; i < tile_queries && tile.query + i < tile.length; ++i) {
        ++visits[static_cast<std::size_t>(tile.row + tile.query + i)];
      }
    }
  }
  EXPECT_TRUE(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; }));
}

TEST(CudaAttentionTiles, TakeEveryQueryOnce) {
  expect_every_query_once({}, 128, 0);
  expect_every_query_once({0, 0}, 128, 0);
  expect_every_query_once({1, 63, 0, 64, 65, 2, 129, 1, 300}, 64, 1);
  expect_every_query_once({100'000, 1}, 128, 1);
  expect_every_query_once(std::vector<std::int64_t>(2'500, 3), 16, 3);
}

TEST(CudaAttentionTiles, BeginWithTheMostKeys) {
  const SampleTiles tiles = sample_tiles(std::vector<std::int64_t>{0, 100, 1100}, 128).front();
  const QueryTile first = query_tile(tiles, 128, 0);
  EXPECT_EQ(first.row, 100);
  EXPECT_EQ(first.query, 896);
}

}  // namespace
}  // namespace reap::cuda
