#include "driver/stop_request.hpp"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "kernels/check.hpp"

namespace reap {
namespace {

// Read and written by the signal handler.
std::atomic<bool> heeded = false;  // a signal is a request
std::atomic<bool> requested = false;
std::atomic<int> event = -1;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void on_stop_signal(int signal) {
  const int error = errno;
  if (heeded) requested = true;
  if (signal == SIGTERM && event >= 0) {
    const std::uint64_t one = 1;
    static_cast<void>(!::write(event, &one, sizeof one));
  }
  errno = error;
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;  // reading and writing go on
  REAP_CHECK(::sigaction(signal, &action, nullptr) == 0, "sigaction: {}", std::strerror(errno));
}

}  // namespace

void install_stop_handlers() {
  heeded = true;
  handle(SIGUSR1, on_stop_signal);
  handle(SIGTERM, on_stop_signal);
}

bool stop_requested() { return requested; }

int watch_for_termination() {
  if (event < 0) {
    event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0) fail(ExitCode::io, "no descriptor to watch for signals: {}", std::strerror(errno));
  }
  handle(SIGTERM, on_stop_signal);
  return event;
}

bool terminations_are_requests() { return heeded; }

void obey_termination() {
  handle(SIGTERM, SIG_DFL);
  ::kill(::getpid(), SIGTERM);
}

void stop_watching_for_termination() {
  if (!heeded) handle(SIGTERM, SIG_DFL);
}

}  // namespace reap
