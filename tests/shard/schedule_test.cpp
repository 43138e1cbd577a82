#include "shard/schedule.hpp"

#include <gtest/gtest.h>

#include <set>

namespace reap {
namespace {

std::vector<Block> blocks_of(const std::vector<std::int64_t>& rows) {
  std::vector<Block> blocks;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto n = static_cast<std::int64_t>(i);
    blocks.push_back({.index = n, .first = n, .last = n + 1, .begin = begin, .end = begin + rows[i]});
    begin += rows[i];
  }
  return blocks;
}

TEST(Schedule, DealsBlocksThatAreNotDoneInTurn) {
  const std::vector<Block> blocks = blocks_of({5, 5, 5, 5, 5});
  const Schedule schedule(blocks, 1, std::vector<std::int64_t>{4, 0, 2, 0, 4}, 4, 2, 0);
  ASSERT_EQ(schedule.steps(), 2);
  EXPECT_EQ(schedule.block(0, 0), 1);
  EXPECT_EQ(schedule.block(0, 1), 2);
  EXPECT_EQ(schedule.block(1, 0), 3);
  EXPECT_EQ(schedule.block(1, 1), Schedule::kNone);
  EXPECT_EQ(schedule.first_layer(2), 2);
}

TEST(Schedule, AWaveEndsWhereTheFullestColumnIsFull) {
  const std::vector<Block> blocks = blocks_of({10, 1, 10, 1, 10, 1, 50, 1, 1, 1});
  const auto waves = [&](std::int64_t rows) {
    std::vector<std::pair<std::int64_t, std::int64_t>> result;
    const Schedule schedule(blocks, 1, std::vector<std::int64_t>(10), 3, 2, rows);
    for (const Schedule::Wave& wave : schedule.waves()) result.emplace_back(wave.first, wave.last);
    return result;
  };
  using Waves = std::vector<std::pair<std::int64_t, std::int64_t>>;
  EXPECT_EQ(waves(0), (Waves{{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}}));
  EXPECT_EQ(waves(20), (Waves{{0, 2}, {2, 3}, {3, 4}, {4, 5}}));  // a step that is larger is a wave alone
  EXPECT_EQ(waves(51), (Waves{{0, 3}, {3, 5}}));
  EXPECT_EQ(waves(1000), (Waves{{0, 5}}));
}

TEST(Schedule, AnExpertGroupRunsWhatOneOfItsColumnsHas) {
  const std::vector<Block> blocks = blocks_of({5, 5, 5, 5});
  const Schedule schedule(blocks, 1, std::vector<std::int64_t>{0, 2, 3, 3}, 4, 2, 100);
  EXPECT_TRUE(schedule.runs(0, 0, {0, 2}));
  EXPECT_FALSE(schedule.runs(0, 1, {1, 2}));
  EXPECT_TRUE(schedule.runs(0, 2, {1, 2}));
  EXPECT_FALSE(schedule.runs(1, 2, {0, 2}));
  EXPECT_TRUE(schedule.runs(1, 3, {0, 2}));
  ASSERT_EQ(schedule.waves().size(), 1U);
  EXPECT_TRUE(schedule.runs(schedule.waves()[0], 0, {0, 2}));
  EXPECT_FALSE(schedule.runs(schedule.waves()[0], 1, {1, 2}));
}

TEST(Schedule, TheVariantsOfABlockStayInItsColumn) {
  const Schedule schedule(blocks_of({5, 5, 7}), 3, std::vector<std::int64_t>(9), 4, 2, 16);
  ASSERT_EQ(schedule.steps(), 6);
  for (std::int64_t step = 0; step < 6; ++step) {
    EXPECT_EQ(schedule.block(step, 0), step < 3 ? step : 6 + step - 3) << step;
    EXPECT_EQ(schedule.block(step, 1), step < 3 ? 3 + step : Schedule::kNone) << step;
  }
  ASSERT_EQ(schedule.waves().size(), 3U);  // 5 + 5 + 5, 7 + 7, 7
  EXPECT_EQ(schedule.waves()[0].last, 3);
  EXPECT_EQ(schedule.waves()[1].last, 5);
}

TEST(Schedule, ThereMayBeNothingLeft) {
  const Schedule schedule(blocks_of({5, 5}), 1, std::vector<std::int64_t>{3, 3}, 3, 4, 0);
  EXPECT_EQ(schedule.steps(), 0);
  EXPECT_TRUE(schedule.waves().empty());
}

}  // namespace
}  // namespace reap
