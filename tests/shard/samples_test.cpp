#include "shard/samples.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace reap {
namespace {

using Offsets = std::vector<std::int64_t>;

/// First samples of the blocks, then the number of samples: says the partition in one line.
Offsets cuts(const Offsets& offsets, std::int64_t block_tokens) {
  Offsets cuts;
  for (const Block& block : make_blocks(offsets, block_tokens)) cuts.push_back(block.first);
  cuts.push_back(static_cast<std::int64_t>(offsets.size()) - 1);
  return cuts;
}

TEST(MakeBlocks, FillsBlocksWithWholeSamples) {
  EXPECT_EQ(cuts({0, 4, 8, 12}, 8), (Offsets{0, 2, 3}));
  EXPECT_EQ(cuts({0, 4, 8, 12}, 7), (Offsets{0, 1, 2, 3}));
  EXPECT_EQ(cuts({0, 4, 8, 12}, 100), (Offsets{0, 3}));
}

TEST(MakeBlocks, LongerSampleIsABlockAlone) {
  EXPECT_EQ(cuts({0, 2, 22, 24}, 10), (Offsets{0, 1, 2, 3}));
  EXPECT_EQ(cuts({0, 50}, 10), (Offsets{0, 1}));
}

TEST(MakeBlocks, NoSamplesGiveNoBlocks) { EXPECT_TRUE(make_blocks({0}, 4096).empty()); }

TEST(MakeBlocks, BlocksTileTheTokensInOrder) {
  Offsets offsets{0};
  for (std::int64_t sample = 0; sample < 200; ++sample) offsets.push_back(offsets.back() + 1 + sample * 37 % 300);
  for (const std::int64_t block_tokens : {1, 64, 299, 1000, 1000000}) {
    std::int64_t next = 0;
    for (const Block& block : make_blocks(offsets, block_tokens)) {
      ASSERT_EQ(block.first, next);
      ASSERT_GT(block.last, block.first);
      ASSERT_EQ(block.begin, offsets[static_cast<std::size_t>(block.first)]);
      ASSERT_EQ(block.end, offsets[static_cast<std::size_t>(block.last)]);
      ASSERT_TRUE(block.rows() <= block_tokens || block.last == block.first + 1) << "block " << block.index;
      next = block.last;
    }
    EXPECT_EQ(next, 200) << block_tokens;
  }
}

TEST(MakeBlocks, CountsItsBlocks) {
  const std::vector<Block> blocks = make_blocks({0, 3, 6, 9, 12}, 6);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0].index, 0);
  EXPECT_EQ(blocks[1].index, 1);
}

TEST(Samples, GroupIsDomainThenHalf) {
  Samples samples;
  samples.offsets = {0, 1, 2, 3};
  samples.domain = {0, 2, 2};
  samples.domains = 3;
  EXPECT_EQ(samples.groups(), 6);
  EXPECT_EQ(samples.group(0), 0);
  EXPECT_EQ(samples.group(1), 5);
  EXPECT_EQ(samples.group(2), 4);
}

}  // namespace
}  // namespace reap
