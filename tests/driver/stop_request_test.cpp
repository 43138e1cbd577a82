#include "driver/stop_request.hpp"

#include <gtest/gtest.h>
#include <sys/poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

namespace reap {
namespace {

/// What becomes of a process that does `work`: its exit code, or the negative of the signal that ended it.
int end_of(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

bool readable(int descriptor) {
  pollfd what{descriptor, POLLIN, 0};
  return poll(&what, 1, 0) == 1;
}

TEST(StopRequest, SignalsEndTheProcessWithoutHandlers) {
  EXPECT_EQ(end_of([] { raise(SIGUSR1); }), -SIGUSR1);
  EXPECT_EQ(end_of([] { raise(SIGTERM); }), -SIGTERM);
}

TEST(StopRequest, SignalsAreRequestsWithThem) {
  for (const int signal : {SIGUSR1, SIGTERM}) {
    EXPECT_EQ(end_of([signal] {
                install_stop_handlers();
                if (stop_requested()) _exit(1);
                raise(signal);
                _exit(stop_requested() ? 42 : 2);
              }),
              42);
  }
}

TEST(StopRequest, AWatchedTerminationWaitsForItsWatcher) {
  EXPECT_EQ(end_of([] {
              const int termination = watch_for_termination();
              if (readable(termination)) _exit(1);
              raise(SIGTERM);
              if (!readable(termination) || stop_requested() || terminations_are_requests()) _exit(2);
              obey_termination();
              _exit(3);
            }),
            -SIGTERM);
  EXPECT_EQ(end_of([] {
              watch_for_termination();
              stop_watching_for_termination();
              raise(SIGTERM);
            }),
            -SIGTERM);
}

TEST(StopRequest, AWatchedRequestStaysOne) {
  EXPECT_EQ(end_of([] {
              install_stop_handlers();
              const int termination = watch_for_termination();
              raise(SIGTERM);
              if (!readable(termination) || !terminations_are_requests()) _exit(1);
              stop_watching_for_termination();
              raise(SIGTERM);
              _exit(stop_requested() ? 42 : 2);
            }),
            42);
}

}  // namespace
}  // namespace reap
