#include "driver/conveyor.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/check.hpp"

namespace reap {
namespace {

using Stage = std::function<void(std::size_t)>;

class Conveyor : public testing::TestWithParam<std::size_t> {};  // number of slots

TEST_P(Conveyor, EveryStageSeesEveryItemInOrder) {
  constexpr int kItems = 100;
  std::vector<int> slots(GetParam());
  std::vector<int> seen;
  int next = 0;
  const std::array<Stage, 3> stages{[&](std::size_t slot) { slots[slot] *= 2; },
                                    [&](std::size_t slot) { slots[slot] += 1; },
                                    [&](std::size_t slot) { seen.push_back(slots[slot]); }};
  run_conveyor(
      slots.size(),
      [&](std::size_t slot) {
        if (next == kItems) return false;
        slots[slot] = next++;
        return true;
      },
      stages);
  ASSERT_EQ(seen.size(), kItems);
  for (int i = 0; i < kItems; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], 2 * i + 1);
}

TEST_P(Conveyor, AnErrorOfAnyStageEndsAllAndReachesTheCaller) {
  for (std::size_t bad = 0; bad < 3; ++bad) {
    std::atomic<int> supplied = 0;
    const auto work = [&](std::size_t stage) {
      if (stage == bad && supplied > 5) fail(ExitCode::io, "stage {} broke", stage);
    };
    const std::array<Stage, 2> stages{[&](std::size_t) { work(1); }, [&](std::size_t) { work(2); }};
    try {
      run_conveyor(
          GetParam(),
          [&](std::size_t) {
            ++supplied;
            work(0);
            return true;  // without end: only the error stops it
          },
          stages);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), fmt::format("stage {} broke", bad));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Slots, Conveyor, testing::Values(1, 2, 4));

TEST(ConveyorOnce, NoItems) {
  const std::array<Stage, 1> stages{[](std::size_t) { FAIL(); }};
  run_conveyor(
      2, [](std::size_t) { return false; }, stages);
}

TEST(ConveyorOnce, StagesWorkAtTheSameTime) {
  std::latch both_inside(2);  // passes only when two stages are at work together; otherwise the test hangs
  int supplied = 0;
  const std::array<Stage, 1> stages{[&](std::size_t slot) {
    if (slot == 0) both_inside.arrive_and_wait();
  }};
  run_conveyor(
      2,
      [&](std::size_t slot) {
        if (slot == 1) both_inside.arrive_and_wait();
        return supplied++ < 2;
      },
      stages);
}

TEST(ConveyorOnce, ErrorsOfOtherThreadsKnowThePlace) {
  const Scope rank("rank 3");
  const std::array<Stage, 1> stages{[](std::size_t) {}};
  try {
    run_conveyor(
        1, [](std::size_t) -> bool { fail(ExitCode::io, "cannot read"); }, stages);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "rank 3: cannot read");
  }
}

}  // namespace
}  // namespace reap
