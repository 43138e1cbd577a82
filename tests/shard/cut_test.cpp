#include "shard/cut.hpp"

#include <gtest/gtest.h>

#include "kernels/error.hpp"

namespace reap {
namespace {

constexpr std::chrono::seconds kTimeout{60};

/// Ranks do operations at very different speeds, without anything between them but the cut.
TEST(Cut, EveryRankOfAGroupStopsAfterTheSameOperations) {
  const Comm world(MPI_COMM_WORLD);
  for (int ep = 1; ep <= world.size(); ++ep) {
    if (world.size() % ep != 0) continue;
    const Grid grid{.pp = 1, .ep = ep, .dp = world.size() / ep};
    Pulse pulse(world, kTimeout);
    bool stop = false;
    Cut cut(pulse, grid, world.rank(), {{}, [&] { return stop && world.rank() == world.size() - 1; }});
    world.on_wait([&] { cut.poll(); });  // what rank 0 has told the others leaves with its next beat
    std::int64_t operations = 0;
    std::int64_t idle = 0;
    while (!cut.reached()) {
      cut.poll();
      if (cut.open() && idle++ % (1 + 3 * world.rank()) == 0) {
        cut.begin();
        ++operations;
      }
      stop = operations > 50;
    }
    EXPECT_TRUE(cut.stops());
    world.all_barrier();
    world.on_wait({});
    const Comm group = world.split(world.rank() / ep);
    std::int64_t most = operations;
    group.all_max(std::span(&most, 1));
    EXPECT_EQ(operations, most);
  }
}

TEST(Cut, ComesAgainUntilAllHaveFinished) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, kTimeout);
  int saves = 0;
  Cut cut(pulse, {.pp = world.size(), .ep = 1, .dp = 1}, world.rank(), {[&] { return saves < 5; }, {}});
  world.on_wait([&] { cut.poll(); });
  while (saves < 5) {
    cut.poll();
    if (cut.reached()) {
      EXPECT_FALSE(cut.stops());
      world.all_barrier();  // all ranks are there
      ++saves;
      cut.go_on();
    }
    if (cut.open()) cut.begin();
  }
  cut.finish();
  world.wait_until([&] { return cut.over(); }, "test");
  EXPECT_EQ(saves, 5);
  world.all_barrier();
  world.on_wait({});
}

TEST(Cut, IsOverWhenAllHaveFinished) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, kTimeout);
  Cut cut(pulse, {.pp = 1, .ep = 1, .dp = world.size()}, world.rank(), {});
  world.on_wait([&] { cut.poll(); });
  EXPECT_TRUE(cut.open());
  cut.begin();
  cut.finish();
  world.wait_until([&] { return cut.over(); }, "test");
  EXPECT_FALSE(cut.reached());
  EXPECT_THROW(cut.go_on(), Error);
  world.all_barrier();
  world.on_wait({});
}

}  // namespace
}  // namespace reap
