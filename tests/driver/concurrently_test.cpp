#include "driver/concurrently.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "driver/expect_error.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

TEST(Concurrently, EveryIndexOnce) {
  for (const std::size_t workers : {1, 2, 7}) {
    for (const std::size_t count : {0, 1, 5, 100}) {
      std::vector<std::atomic<int>> times(count);
      for_each_concurrently(count, workers, [&](std::size_t i) { ++times[i]; });
      for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(times[i], 1) << i << " of " << count;
    }
  }
}

TEST(Concurrently, AtTheSameTime) {
  std::latch all_inside(3);  // passes only when three are at work together; otherwise the test hangs
  for_each_concurrently(3, 3, [&](std::size_t) { all_inside.arrive_and_wait(); });
}

TEST(Concurrently, TheCallerIsIdleMeanwhile) {
  const std::thread::id caller = std::this_thread::get_id();
  std::latch idled(3);  // the work ends only when the caller has been idle three times
  for_each_concurrently(
      1, 4,
      [&](std::size_t) {
        EXPECT_NE(std::this_thread::get_id(), caller);
        idled.wait();
      },
      [&] {
        EXPECT_EQ(std::this_thread::get_id(), caller);
        if (!idled.try_wait()) idled.count_down();
      });
}

TEST(Concurrently, AnErrorWhileIdleEndsTheWork) {
  std::atomic<bool> failed = false;
  std::atomic<int> begun = 0;
  expect_error(ExitCode::peer, {"rank 3 is silent"}, [&] {
    for_each_concurrently(
        1'000'000, 2,
        [&](std::size_t) {
          ++begun;
          while (!failed) std::this_thread::yield();
        },
        [&] {
          failed = true;
          fail(ExitCode::peer, "rank 3 is silent");
        });
  });
  EXPECT_LT(begun, 1'000'000);
}

TEST(Concurrently, NoFurtherOneBeginsAfterAnError) {
  const Scope rank("rank 2");
  for (const std::size_t workers : {1, 3}) {
    std::atomic<int> begun = 0;
    expect_error(ExitCode::io, {"rank 2: file 3"}, [&] {
      for_each_concurrently(1'000'000, workers, [&](std::size_t i) {
        ++begun;
        if (i == 3) fail(ExitCode::io, "file {}", i);
      });
    });
    EXPECT_LT(begun, 1'000'000);
  }
}

}  // namespace
}  // namespace reap
