#include "driver/watchdog.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/poll.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "driver/shared_memory.hpp"
#include "driver/stop_request.hpp"
#include "shard/host_name.hpp"
#include "shard/json.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

constexpr double kLongestLook = 1;  // seconds between looks
constexpr double kLooksPerTimeout = 20;
constexpr double kPatience = 1.25;  // timeouts: the pulse comes first, and says more
constexpr double kEndSoon = 10;

/// One write, so that the lines of ranks that speak at the same time stay apart.
void say(const std::string& text) {
  const std::string line = "reap_dist: " + text + "\n";
  static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size()));
}

/// The processes that this one sees: a process of another container is not among them, whatever its number.
std::string process_namespace() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
}

/// Whether the process is no more, or only its exit code is left of it.
bool has_died(pid_t process) {
  std::ifstream stat(fmt::format("/proc/{}/stat", process));
  std::string text;
  if (!std::getline(stat, text)) return true;
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && name_end + 2 < text.size() && text[name_end + 2] == 'Z';
}

/// Another process of this node.
struct Neighbour {
  int rank;
  pid_t process;
  int record;  // descriptor, open so that it outlives the process; -1 = none
};

}  // namespace

struct Watchdog::Impl {
  Impl(double timeout_seconds, int own_rank)
      : rank{own_rank},
        patience{timeout_seconds > 0 ? kPatience * timeout_seconds : std::numeric_limits<double>::infinity()},
        look{std::min(kLongestLook, timeout_seconds > 0 ? timeout_seconds / kLooksPerTimeout : kLongestLook)},
        termination{watch_for_termination()},
        thread{[this](const std::stop_token& stop) { watch(stop); }} {}

  void watch(const std::stop_token& stop) {
    auto before = std::chrono::steady_clock::now();
    while (!stop.stop_requested()) {
      pollfd poll_for{termination, POLLIN, 0};
      const bool terminated = ::poll(&poll_for, 1, static_cast<int>(1000 * look)) > 0;
      const auto now = std::chrono::steady_clock::now();
      // While the whole process was suspended, nothing could be done: a look counts for at most two.
      const double passed = std::min(std::chrono::duration<double>(now - before).count(), 2 * look);
      before = now;
      if (stop.stop_requested()) return;
      look_after_neighbour();
      if (terminated) obey();
      look_after_main_thread(passed);
    }
  }

  void obey() {
    std::uint64_t times = 0;
    static_cast<void>(!::read(termination, &times, sizeof times));
    if (terminations_are_requests()) return;
    operations::phase(operations::kEnd);
    remove_shared_memory_names();
    obey_termination();
  }

  void look_after_neighbour() {
    const std::lock_guard lock(mutex);
    if (!neighbour || !has_died(neighbour->process)) return;
    const auto place = operations::last_in(fmt::format("/proc/self/fd/{}", neighbour->record));
    if (!place || place->phase != operations::kEnd) {
      say(fmt::format("rank {} (host {}, process {}) died{}", neighbour->rank, host_name(), neighbour->process,
                      place ? " in " + operations::text_of(*place) : ""));
    }
    if (neighbour->record >= 0) ::close(neighbour->record);
    neighbour.reset();
    remove_shared_memory_names();
  }

  void look_after_main_thread(double passed) {
    const operations::Place place = operations::last();
    const std::int64_t signs = place.count + place.moves + place.beats;
    still = signs == seen ? still + passed : 0;
    seen = signs;
    if (still > patience) {
      say(fmt::format("error: rank {} (host {}) is stuck in {}", rank, host_name(), operations::text_of(place)));
      end_now(static_cast<int>(ExitCode::peer));
    }
    if (ending != 0 && (ending_in -= passed) < 0) end_now(ending);
  }

  [[noreturn]] static void end_now(int code) {
    operations::phase(operations::kEnd);
    ::_exit(code);
  }

  ~Impl() {
    thread.request_stop();
    const std::uint64_t one = 1;
    static_cast<void>(!::write(termination, &one, sizeof one));  // wakes it
    thread.join();
    stop_watching_for_termination();
    if (neighbour && neighbour->record >= 0) ::close(neighbour->record);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  int rank;
  double patience;
  double look;
  int termination;  // descriptor
  std::mutex mutex;
  std::optional<Neighbour> neighbour;
  double still = 0;
  std::int64_t seen = -1;
  std::atomic<int> ending = 0;  // exit code
  double ending_in = kEndSoon;
  std::jthread thread;  // the last member: it uses the others
};

Watchdog::Watchdog(double timeout_seconds, int rank) : impl_{std::make_unique<Impl>(timeout_seconds, rank)} {}

Watchdog::~Watchdog() = default;

void Watchdog::all_meet(const Comm& world, const std::filesystem::path& record) {
  const Comm node = world.split_by_node();
  const Json own{world.rank(), ::getpid(), process_namespace(), record.string()};
  const std::vector<std::string> all = node.all_gather(own.dump());
  if (all.size() == 1) return;
  const Json next = parse_json(all[static_cast<std::size_t>((node.rank() + 1) % node.size())], "the next rank");
  if (next[2] != own[2]) return;
  const std::string path = next[3];
  const std::lock_guard lock(impl_->mutex);
  impl_->neighbour = Neighbour{next[0], next[1], ::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
}

void Watchdog::end_soon(ExitCode code) { impl_->ending = static_cast<int>(code); }

}  // namespace reap
