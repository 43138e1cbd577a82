#include "driver/calibration_parts.hpp"

#include <gtest/gtest.h>

#include <random>

#include "driver/expect_error.hpp"

namespace reap {
namespace {

std::vector<std::int64_t> random_offsets(std::mt19937& random, std::int64_t samples) {
  std::vector<std::int64_t> offsets = {0};
  for (std::int64_t i = 0; i < samples; ++i) offsets.push_back(offsets.back() + 1 + static_cast<int>(random() % 300));
  return offsets;
}

TEST(BlocksOfPart, SharesAreTheWholeInOrder) {
  std::mt19937 random(11);
  for (const std::int64_t samples : {1, 2, 7, 100}) {
    const std::vector<Block> all = make_blocks(random_offsets(random, samples), 256);
    const auto total = static_cast<std::int64_t>(all.size());
    for (const std::int64_t count : {std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, total - 1, total}) {
      if (count < 1 || count > total) continue;
      std::size_t next = 0;
      for (std::int64_t index = 1; index <= count; ++index) {
        const std::vector<Block> own = blocks_of_part(all, {index, count});
        ASSERT_FALSE(own.empty());
        for (std::size_t i = 0; i < own.size(); ++i, ++next) {
          ASSERT_LT(next, all.size());
          EXPECT_EQ(own[i].index, static_cast<std::int64_t>(i));
          EXPECT_EQ(own[i].first, all[next].first);
          EXPECT_EQ(own[i].last, all[next].last);
          EXPECT_EQ(own[i].begin, all[next].begin);
          EXPECT_EQ(own[i].end, all[next].end);
        }
      }
      EXPECT_EQ(next, all.size());
    }
  }
}

TEST(BlocksOfPart, SharesHaveAboutEqualTokens) {
  std::mt19937 random(12);
  const std::vector<Block> all = make_blocks(random_offsets(random, 2000), 512);
  const std::int64_t count = 8, largest_block = 512;
  for (std::int64_t index = 1; index <= count; ++index) {
    const std::vector<Block> own = blocks_of_part(all, {index, count});
    const std::int64_t tokens = own.back().end - own.front().begin;
    EXPECT_NEAR(static_cast<double>(tokens), static_cast<double>(all.back().end) / count, largest_block);
  }
}

/// One sample outweighs all others: every share has a block all the same.
TEST(BlocksOfPart, ALongSampleLeavesNoShareEmpty) {
  const std::vector<Block> all = make_blocks({0, 1, 2, 10000, 10001, 10002}, 1);
  for (std::int64_t index = 1; index <= 5; ++index) {
    ASSERT_EQ(blocks_of_part(all, {index, 5}).size(), 1u);
    EXPECT_EQ(blocks_of_part(all, {index, 5})[0].first, index - 1);
  }
}

TEST(BlocksOfPart, RefusesMoreSharesThanBlocks) {
  expect_error(ExitCode::usage, {"--part 2/3", "2 blocks"}, [] { blocks_of_part(make_blocks({0, 5, 9}, 5), {2, 3}); });
}

CalibrationPart part(char digest, std::int64_t first, std::int64_t last, std::vector<std::string> domains = {"all"}) {
  return {std::string(32, digest), first, last, 10, 100, std::move(domains)};
}

TEST(CalibrationParts, DigestTellsSetsApart) {
  EXPECT_EQ(digest_of({part('a', 0, 10)}), std::string(32, 'a'));
  const std::vector<std::vector<CalibrationPart>> sets = {{part('a', 0, 5)},
                                                          {part('a', 0, 6)},
                                                          {part('a', 5, 10)},
                                                          {part('b', 0, 5)},
                                                          {part('a', 0, 5), part('b', 0, 5)},
                                                          {part('a', 0, 10), part('b', 0, 10)}};
  for (std::size_t i = 0; i < sets.size(); ++i) {
    EXPECT_EQ(digest_of(sets[i]).size(), 32u);
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(digest_of(sets[i]), digest_of(sets[j])) << i << " and " << j;
  }
}

TEST(CalibrationParts, DomainsKeepTheOrderOfAllOrAreSorted) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(domains_of({part('a', 0, 5, {"y", "x"}), part('b', 0, 5, {"y", "x"})}), (Names{"y", "x"}));
  EXPECT_EQ(domains_of({part('a', 0, 5, {"y", "x"}), part('b', 0, 5, {"x", "y"})}), (Names{"x", "y"}));
  EXPECT_EQ(domains_of({part('a', 0, 5, {"y"}), part('b', 0, 5, {"z"}), part('c', 0, 5, {"a"})}),
            (Names{"a", "y", "z"}));
}

}  // namespace
}  // namespace reap
