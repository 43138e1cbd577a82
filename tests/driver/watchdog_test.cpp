#include "driver/watchdog.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <thread>

#include "shard/operations.hpp"

namespace reap {
namespace {

using std::chrono::milliseconds;

struct End {
  int code = 0;  // or the negative of the signal
  std::string said;
};

/// What becomes of a process that does `work`, and what it says on stderr.
End end_of(const std::function<void()>& work) {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe(ends.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    work();
    _exit(0);
  }
  close(ends[1]);
  End end;
  std::array<char, 1000> text{};
  for (ssize_t got = 0; (got = read(ends[0], text.data(), text.size())) > 0;) {
    end.said.append(text.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  end.code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return end;
}

void stay() { std::this_thread::sleep_for(std::chrono::seconds(30)); }

TEST(Watchdog, AStuckProcessIsEnded) {
  const End end = end_of([] {
    const Watchdog watchdog(0.4, 3);
    operations::phase("write");
    operations::note("read of the weights", 17);
    stay();
  });
  EXPECT_EQ(end.code, 6);
  EXPECT_NE(end.said.find("reap_dist: error: rank 3 (host "), std::string::npos) << end.said;
  EXPECT_NE(end.said.find(") is stuck in write, layer 17: read of the weights, "), std::string::npos) << end.said;
}

TEST(Watchdog, OperationsMovesAndBeatsKeepItQuiet) {
  for (void (*const sign)() :
       {+[] { operations::note("work"); }, +[] { operations::moved(); }, +[] { operations::beat(); }}) {
    const End end = end_of([sign] {
      const Watchdog watchdog(0.4, 0);
      for (int i = 0; i < 150; ++i) {
        std::this_thread::sleep_for(milliseconds(10));
        sign();
      }
    });
    EXPECT_EQ(end.code, 0);
    EXPECT_EQ(end.said, "");
  }
}

TEST(Watchdog, WithoutADeadlineItWaitsForEver) {
  const End end = end_of([] {
    const Watchdog watchdog(0, 0);
    std::this_thread::sleep_for(milliseconds(1500));
  });
  EXPECT_EQ(end.code, 0);
  EXPECT_EQ(end.said, "");
}

TEST(Watchdog, TerminationEndsTheProcess) {
  const End end = end_of([] {
    const Watchdog watchdog(600, 0);
    raise(SIGTERM);
    stay();
  });
  EXPECT_EQ(end.code, -SIGTERM);
  EXPECT_EQ(end.said, "");
}

TEST(Watchdog, AnEndThatTakesTooLongIsMadeShort) {
  const End end = end_of([] {
    Watchdog watchdog(600, 0);
    watchdog.end_soon(ExitCode::numerics);
    stay();
  });
  EXPECT_EQ(end.code, 5);
}

}  // namespace
}  // namespace reap
