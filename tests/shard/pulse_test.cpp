#include "shard/pulse.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "kernels/error.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kForever{0};

/// Beats until `over`, as a rank that works does. Gives up after a while, for the test to fail.
template <class Over>
void beat_until(Pulse& pulse, const Over& over) {
  const auto end = steady_clock::now() + seconds(30);
  while (!over() && steady_clock::now() < end) {
    operations::note("work");
    pulse.beat();
    std::this_thread::sleep_for(milliseconds(1));
  }
}

/// Meets the other ranks with the pulse beating, as commands do.
void meet(const Comm& world, Pulse& pulse) {
  world.on_wait([&] {
    operations::moved();
    pulse.beat();
  });
  world.all_barrier();
  world.on_wait({});
}

TEST(Pulse, WordsTravelBothWays) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, kForever);
  const Pulse::Words nothing{};
  EXPECT_EQ(pulse.ordered(), nothing);
  for (std::int64_t turn = 1; turn <= 20; ++turn) {
    pulse.say({turn, world.rank(), -1, std::int64_t{1} << 40});
    if (world.rank() == 0) {
      for (int rank = 0; rank < world.size(); ++rank) {
        const Pulse::Words expected{turn, rank, -1, std::int64_t{1} << 40};
        beat_until(pulse, [&] { return pulse.heard(rank) == expected; });
        EXPECT_EQ(pulse.heard(rank), expected);
        pulse.order(rank, {turn, 10 * rank, 0, 0});
      }
    }
    const Pulse::Words order{turn, 10 * world.rank(), 0, 0};
    beat_until(pulse, [&] { return pulse.ordered() == order; });
    EXPECT_EQ(pulse.ordered(), order);
  }
  meet(world, pulse);
}

TEST(Pulse, OnlyRank0HearsAndOrders) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, kForever);
  if (world.rank() != 0) {
    EXPECT_THROW(pulse.heard(0), Error);
    EXPECT_THROW(pulse.order(0, {}), Error);
  }
}

/// What a rank's pulse says at last; every rank but `quiet` beats, with operations or without.
std::optional<std::string> verdict(const Comm& world, Pulse& pulse, int quiet, bool works) {
  const Scope scope("rank " + std::to_string(world.rank()));
  const auto begin = steady_clock::now();
  const seconds enough(world.rank() == quiet ? 3 : 10);
  while (steady_clock::now() - begin < enough) {
    if (world.rank() != quiet) {
      try {
        if (works) operations::note("experts", 17, 123);
        pulse.beat();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::peer);
        EXPECT_THROW(pulse.beat(), Error);  // and again
        return error.what();
      }
    }
    std::this_thread::sleep_for(milliseconds(1));
  }
  return std::nullopt;
}

TEST(Pulse, ASilentRankIsNamed) {
  const Comm world(MPI_COMM_WORLD);
  if (world.size() == 1) GTEST_SKIP() << "needs a second rank";
  Pulse pulse(world, seconds(1));
  operations::phase("observe");
  operations::note("experts", 17, 123);
  const int quiet = world.size() - 1;
  beat_until(pulse, [begin = steady_clock::now()] { return steady_clock::now() - begin > milliseconds(300); });
  const auto said = verdict(world, pulse, quiet, true);
  if (world.rank() == 0) {
    const std::string text = said.value_or("nothing");
    EXPECT_NE(text.find("rank 0: rank " + std::to_string(quiet) + " (host "), std::string::npos) << text;
    EXPECT_NE(text.find("has not answered for 1 s, last heard of in observe, layer 17, block 123: work"),
              std::string::npos)
        << text;
  }
  world.all_barrier();
}

TEST(Pulse, ASilentRank0IsNamedByTheOthers) {
  const Comm world(MPI_COMM_WORLD);
  if (world.size() == 1) GTEST_SKIP() << "needs a second rank";
  Pulse pulse(world, seconds(1));
  operations::phase("write");
  beat_until(pulse, [begin = steady_clock::now()] { return steady_clock::now() - begin > milliseconds(300); });
  const auto said = verdict(world, pulse, 0, true);
  if (world.rank() != 0) {
    const std::string text = said.value_or("nothing");
    EXPECT_NE(text.find(": rank 0 (host "), std::string::npos) << text;
    EXPECT_NE(text.find("has not answered for 1 s, last heard of in write: work"), std::string::npos) << text;
  }
  world.all_barrier();
}

TEST(Pulse, RanksThatBeatButDoNotGetOnAreFound) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, seconds(1));
  operations::phase("observe");
  operations::note("wait for the stage before", 3 + world.rank(), 5);
  const auto said = verdict(world, pulse, -1, false);
  if (world.rank() == 0) {
    const std::string text = said.value_or("nothing");
    EXPECT_NE(text.find("no rank has got on with its work for 1 s: rank 0 (host "), std::string::npos) << text;
    for (int rank = 0; rank < world.size(); ++rank) {
      const std::string layer = std::to_string(3 + rank);
      EXPECT_NE(text.find("in observe, layer " + layer + ", block 5: wait for the stage before"), std::string::npos)
          << text;
    }
  }
  world.all_barrier();
}

TEST(Pulse, MovedBytesAreProgress) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, milliseconds(500));
  const auto begin = steady_clock::now();
  while (steady_clock::now() - begin < milliseconds(1500)) {
    if (world.rank() == 0) operations::moved();
    EXPECT_NO_THROW(pulse.beat());
    std::this_thread::sleep_for(milliseconds(1));
  }
  world.all_barrier();
}

TEST(Pulse, ARankThatWasSuspendedDoesNotBlameTheOthers) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, seconds(1));
  beat_until(pulse, [begin = steady_clock::now()] { return steady_clock::now() - begin > milliseconds(300); });
  std::this_thread::sleep_for(seconds(2));  // all of them: a laptop's lid
  EXPECT_NO_THROW(
      beat_until(pulse, [begin = steady_clock::now()] { return steady_clock::now() - begin > milliseconds(500); }));
  meet(world, pulse);
}

TEST(Pulse, WithoutADeadlineSilenceIsNoError) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, kForever);
  const auto begin = steady_clock::now();
  while (steady_clock::now() - begin < milliseconds(1500)) {
    if (world.rank() + 1 < world.size()) {
      EXPECT_NO_THROW(pulse.beat());
    }
    std::this_thread::sleep_for(milliseconds(1));
  }
  world.all_barrier();
}

TEST(Pulse, RanksMayLeaveAtDifferentTimes) {
  const Comm world(MPI_COMM_WORLD);
  for (int first = 0; first < world.size(); ++first) {
    std::optional<Pulse> pulse(std::in_place, world, milliseconds(400));
    if (world.rank() == first) pulse.reset();
    const auto begin = steady_clock::now();
    while (steady_clock::now() - begin < milliseconds(1000)) {
      operations::note("work");
      if (pulse) {
        EXPECT_NO_THROW(pulse->beat());
      }
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  // Letters that nobody took are not taken for others.
  std::int64_t sum = 1;
  Comm(MPI_COMM_WORLD).all_sum(std::span(&sum, 1));
  EXPECT_EQ(sum, world.size());
}

TEST(Pulse, ManyBeats) {
  const Comm world(MPI_COMM_WORLD);
  Pulse pulse(world, kForever);
  for (int i = 0; i < 10'000; ++i) pulse.beat();
  meet(world, pulse);
}

}  // namespace
}  // namespace reap
