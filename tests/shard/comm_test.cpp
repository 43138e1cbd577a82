#include "shard/comm.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <new>
#include <numeric>

#include "kernels/check.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

Comm world() { return Comm(MPI_COMM_WORLD); }

TEST(Comm, KnowsItsPlace) {
  const Comm comm = world();
  int rank = -1;
  int size = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(comm.rank(), rank);
  EXPECT_EQ(comm.size(), size);
  EXPECT_NE(comm.handle(), MPI_COMM_WORLD);
}

TEST(Comm, MovesWithoutFreeingTwice) {
  Comm first = world();
  const Comm second(std::move(first));
  EXPECT_EQ(first.handle(), MPI_COMM_NULL);  // NOLINT(bugprone-use-after-move): the point of the test
  second.all_barrier();
}

TEST(Comm, SumsAndMaximaReachEveryRank) {
  const Comm comm = world();
  const std::int64_t ranks = comm.size();
  std::vector<std::int64_t> sums{comm.rank() + 1, std::int64_t{1} << 40, -comm.rank()};
  comm.all_sum(sums);
  EXPECT_EQ(sums, (std::vector<std::int64_t>{ranks * (ranks + 1) / 2, ranks << 40, -ranks * (ranks - 1) / 2}));

  std::vector<float> maxima{static_cast<float>(comm.rank()), static_cast<float>(-comm.rank())};
  comm.all_max(maxima);
  EXPECT_EQ(maxima, (std::vector<float>{static_cast<float>(ranks - 1), 0.0F}));

  std::vector<std::int64_t> integers{-comm.rank(), comm.rank()};
  comm.all_max(integers);
  EXPECT_EQ(integers, (std::vector<std::int64_t>{0, ranks - 1}));

  comm.all_sum(std::span<std::int64_t>());
}

TEST(Comm, SumsMoreThanOnePiece) {
  const Comm comm = world();
  // A piece is 2^28 bytes: the last element of this one lies in a second piece.
  std::vector<std::int64_t> values((std::size_t{1} << 25) + 3, 1);
  values.back() = comm.rank();
  comm.all_sum(values);
  const std::int64_t ranks = comm.size();
  EXPECT_EQ(values.front(), ranks);
  EXPECT_EQ(values[values.size() - 2], ranks);
  EXPECT_EQ(values.back(), ranks * (ranks - 1) / 2);
}

TEST(Comm, BroadcastsTextOfAnyLengthFromAnyRank) {
  const Comm comm = world();
  for (int root = 0; root < comm.size(); ++root) {
    const std::string sent = std::string("rank\0", 5) + std::to_string(root);
    EXPECT_EQ(comm.all_broadcast(root, comm.rank() == root ? sent : "something longer that must go"), sent);
    EXPECT_EQ(comm.all_broadcast(root, comm.rank() == root ? "" : "other"), "");
  }
}

TEST(Comm, GathersTextsInRankOrder) {
  const Comm comm = world();
  const auto text_of = [](int rank) { return std::string(static_cast<std::size_t>(rank), 'x'); };
  const std::vector<std::string> texts = comm.all_gather(text_of(comm.rank()));
  ASSERT_EQ(texts.size(), static_cast<std::size_t>(comm.size()));
  for (int rank = 0; rank < comm.size(); ++rank) EXPECT_EQ(texts[static_cast<std::size_t>(rank)], text_of(rank));
}

TEST(Comm, SplitsKeepTheOrderOfRanks) {
  const Comm comm = world();
  const Comm part = comm.split(comm.rank() % 2);
  EXPECT_EQ(part.rank(), comm.rank() / 2);
  EXPECT_EQ(part.size(), (comm.size() + 1 - comm.rank() % 2) / 2);
  std::int64_t sum = comm.rank();
  part.all_sum(std::span(&sum, 1));
  std::int64_t expected = 0;
  for (int rank = comm.rank() % 2; rank < comm.size(); rank += 2) expected += rank;
  EXPECT_EQ(sum, expected);

  EXPECT_EQ(comm.split_by_node().size(), comm.size());  // the tests run on one node
}

TEST(Comm, ErrorsComeBackAsPeerErrors) {
  const Comm comm = world();
  try {
    std::byte byte{};
    comm.all_broadcast(comm.size(), std::span(&byte, 1));  // no such root
    FAIL() << "accepted a root that does not exist";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::peer);
    EXPECT_NE(std::string(error.what()).find("MPI_Ibcast"), std::string::npos) << error.what();
  }
}

/// Keeps rank 0 back until every other rank waits for it in `wait`, which their hooks tell it by a message.
void wait_for_rank_0(const Comm& comm, const std::function<void()>& wait) {
  if (comm.rank() == 0) {
    for (int i = 1; i < comm.size(); ++i) {
      MPI_Recv(nullptr, 0, MPI_BYTE, MPI_ANY_SOURCE, 7, comm.handle(), MPI_STATUS_IGNORE);
    }
  }
  wait();
}

void tell_rank_0(const Comm& comm) { MPI_Send(nullptr, 0, MPI_BYTE, 0, 7, comm.handle()); }

TEST(Comm, AWaitCallsTheHookOfAnyCommunicatorOfItsKind) {
  const Comm comm = world();
  const Comm before = comm.split(0);
  int calls = 0;
  comm.on_wait([&] {
    if (++calls == 1 && comm.rank() != 0) tell_rank_0(comm);
  });
  const Comm after = comm.split(0);
  for (const Comm* part : {&comm, &before, &after}) {
    calls = 0;
    wait_for_rank_0(comm, [&] { part->all_barrier(); });
    if (comm.rank() != 0) {
      EXPECT_GT(calls, 0);
    }
  }
  comm.on_wait({});
  const int last = calls;
  before.all_barrier();
  EXPECT_EQ(calls, last);
  EXPECT_EQ(before.seconds_waited(), comm.seconds_waited());
  if (comm.rank() != 0) {
    EXPECT_GT(comm.seconds_waited(), 0);
  }
}

TEST(Comm, TheHookMayWaitAndIsNotCalledByThat) {
  const Comm comm = world();
  const Comm other = comm.split(0);
  int calls = 0;
  comm.on_wait([&] {
    if (++calls > 1) return;
    int polls = 0;
    comm.wait_until([&] { return ++polls > 10; }, "wait inside a hook");
    EXPECT_EQ(calls, 1);
    if (comm.rank() != 0) tell_rank_0(other);
  });
  wait_for_rank_0(other, [&] { comm.all_barrier(); });
  if (comm.rank() != 0) {
    EXPECT_GE(calls, 1);
  }
  comm.on_wait({});
}

TEST(Comm, TheHookGivesUpAWait) {
  const Comm comm = world();
  comm.on_wait([] { fail(ExitCode::peer, "rank 9 is silent"); });
  const auto forever = [&] { comm.wait_until([] { return false; }, "wait for ever"); };
  EXPECT_THROW(forever(), Error);
  EXPECT_THROW(forever(), Error);  // called again by the next wait
  comm.on_wait({});
  comm.all_barrier();
}

TEST(Comm, AWaitIsOnRecord) {
  const Comm comm = world();
  const std::int64_t before = operations::last().count;
  MPI_Request none = MPI_REQUEST_NULL;
  comm.wait(std::span(&none, 1), "wait for nothing");
  EXPECT_EQ(operations::last().what, "wait for nothing");
  EXPECT_EQ(operations::last().count, before + 1);
}

/// What all_try throws when `work` runs on every rank; the Error's code and text, or nothing thrown.
struct Outcome {
  ExitCode code = ExitCode::ok;
  std::string text;
};

Outcome outcome(const Comm& comm, const std::function<void()>& work) {
  const Scope scope("rank " + std::to_string(comm.rank()));
  try {
    comm.all_try(work);
  } catch (const SharedError& error) {
    return {error.code(), error.what()};
  }
  return {};
}

TEST(Comm, TryPassesWhenAllRanksDo) {
  const Comm comm = world();
  bool ran = false;
  EXPECT_EQ(outcome(comm, [&] { ran = true; }).code, ExitCode::ok);
  EXPECT_TRUE(ran);
}

TEST(Comm, TryThrowsTheLowestRanksErrorOnAll) {
  const Comm comm = world();
  const int lowest = comm.size() / 2;
  const Outcome result = outcome(comm, [&] {
    if (comm.rank() >= lowest) fail(ExitCode::bad_input, "file {} is broken", comm.rank());
  });
  EXPECT_EQ(result.code, ExitCode::bad_input);
  EXPECT_EQ(result.text, fmt::format("rank {0}: file {0} is broken", lowest));
}

TEST(Comm, TryCarriesForeignExceptions) {
  const Comm comm = world();
  const Outcome memory = outcome(comm, [] { throw std::bad_alloc(); });
  EXPECT_EQ(memory.code, ExitCode::io);
  const Outcome other = outcome(comm, [] { throw std::runtime_error("odd"); });
  EXPECT_EQ(other.code, ExitCode::bug);
  EXPECT_EQ(other.text, "rank 0: odd");
  comm.all_barrier();  // still in step
}

}  // namespace
}  // namespace reap
