// The threads that read for a GPU: none is needed.
#include "kernels/cuda/team.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace reap::cuda {
namespace {

constexpr int kThreads = 5;

TEST(Team, DoesEveryItemOnceAndWaitsForAll) {
  Team team(kThreads);
  for (const std::int64_t items : {0, 1, 3, 5, 200, 0, 7}) {
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(items));
    team.run(items, [&](int thread, std::int64_t item) {
      EXPECT_TRUE(thread >= 0 && thread < kThreads);
      ++done[static_cast<std::size_t>(item)];
    });
    EXPECT_TRUE(std::all_of(done.begin(), done.end(), [](const auto& times) { return times == 1; })) << items;
  }
}

TEST(Team, AThreadDoesOneItemAtATime) {
  Team team(kThreads);
  std::array<std::atomic<int>, kThreads> inside{};
  team.run(500, [&](int thread, std::int64_t) {
    auto& mine = inside[static_cast<std::size_t>(thread)];
    EXPECT_EQ(++mine, 1);
    std::this_thread::yield();
    --mine;
  });
}

TEST(Team, ThrowsWhatAnItemThrowsAndGoesOn) {
  Team team(kThreads);
  for (int round = 0; round < 100; ++round) {
    const auto fail = [&](int, std::int64_t item) {
      if (item == round % 10) throw std::runtime_error("here");
    };
    EXPECT_THROW(team.run(10, fail), std::runtime_error);
    std::atomic<int> done{0};
    team.run(10, [&](int, std::int64_t) { ++done; });
    EXPECT_EQ(done, 10);
  }
}

}  // namespace
}  // namespace reap::cuda
