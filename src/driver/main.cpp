#include <fmt/format.h>
#include <mpi.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <string>

#include "driver/commands.hpp"
#include "driver/stop_request.hpp"
#include "driver/watchdog.hpp"
#include "kernels/check.hpp"
#include "shard/operations.hpp"

namespace {

using reap::ExitCode;

/// MPI from here to the end of the job. Threads of a rank never call MPI, so funneled is all we ask for.
class MpiSession {
 public:
  MpiSession() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  }
  ~MpiSession() {
    reap::operations::phase(reap::operations::kEnd);
    // Under srun a rank that is through it first closes its connections. All is done: writing to them is no failure.
    std::signal(SIGPIPE, SIG_IGN);
    MPI_Finalize();
  }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

/// The rank as the launcher tells it, for texts printed before MPI is up; 0 without a launcher.
int launch_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* text = std::getenv(name)) return std::atoi(text);
  }
  return 0;
}

void complain(const char* what, ExitCode code) {
  fmt::print(stderr, "reap_dist: {}{}\n", code == ExitCode::stopped ? "" : "error: ", what);
}

/// The one place where an error of a single rank ends the job: the others may be waiting for this one.
int abort_job(reap::Watchdog& watchdog, ExitCode code, const char* what) {
  complain(what, code);
  reap::operations::phase(reap::operations::kEnd);
  watchdog.end_soon(code);  // where mpirun cannot be reached, MPI_Abort waits for it in vain
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  return static_cast<int>(code);
}

/// The record of this rank's operations: a file in the log folder, if there is one. @return where other processes find
/// it
std::filesystem::path keep_operations(const std::filesystem::path& log_dir, int rank) {
  if (log_dir.empty()) return reap::operations::keep_in_memory();
  const std::filesystem::path file = std::filesystem::absolute(log_dir / fmt::format("rank-{:04d}.operations", rank));
  reap::operations::keep_in(file);
  return file;
}

/// The pulse, beating while this rank waits.
class BeatingPulse {
 public:
  BeatingPulse(const reap::Comm& world, double timeout_seconds)
      : world_{world}, pulse_{world, std::chrono::duration<double>(timeout_seconds)} {
    world.on_wait([this] { pulse_.beat(); });
  }
  ~BeatingPulse() { world_.on_wait({}); }
  BeatingPulse(const BeatingPulse&) = delete;
  BeatingPulse& operator=(const BeatingPulse&) = delete;
  reap::Pulse& pulse() { return pulse_; }

 private:
  const reap::Comm& world_;
  reap::Pulse pulse_;
};

void run_command(const reap::Comm& world, const reap::Options& options, reap::Watchdog& watchdog) {
  std::unique_ptr<reap::Log> log;
  std::unique_ptr<reap::Progress> progress;
  std::filesystem::path record;
  world.all_try([&] {
    log = std::make_unique<reap::Log>(options.log_dir, world.rank());
    progress = std::make_unique<reap::Progress>(*log, world.rank(), options.metrics);
    record = keep_operations(options.log_dir, world.rank());
  });
  watchdog.all_meet(world, record);
  BeatingPulse beating(world, options.timeout_seconds);
  reap::Job job{world, options, *log, *progress, beating.pulse()};
  reap::find_command(options.command)->run(job);
}

int run_job(const reap::Options& options) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of write(), with a name, not a signal
  if (!options.state.empty()) reap::install_stop_handlers();
  reap::Watchdog watchdog(options.timeout_seconds, launch_rank());
  const MpiSession session;
  const reap::Comm world(MPI_COMM_WORLD);
  const reap::Scope scope(fmt::format("rank {}", world.rank()));
  const auto abort = [&](ExitCode code, const std::string& what) { return abort_job(watchdog, code, what.c_str()); };
  try {
    run_command(world, options, watchdog);
    return static_cast<int>(ExitCode::ok);
  } catch (const reap::SharedError& e) {
    if (world.rank() == 0) complain(e.what(), e.code());
    return static_cast<int>(e.code());
  } catch (const reap::Error& e) {
    return abort(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return abort(ExitCode::io,
                 fmt::format("rank {}: out of memory; use more ranks or a smaller --block-tokens", world.rank()));
  } catch (const std::filesystem::filesystem_error& e) {
    return abort(ExitCode::io, fmt::format("rank {}: {}", world.rank(), e.what()));
  } catch (const std::exception& e) {
    return abort(ExitCode::bug, fmt::format("rank {}: {}; this is a bug of reap_dist", world.rank(), e.what()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  reap::CommandLine line;
  try {
    line = reap::parse_command_line(argc, argv);
  } catch (const reap::Error& e) {
    if (launch_rank() == 0) complain(e.what(), e.code());
    return static_cast<int>(e.code());
  }
  if (!line.text.empty()) {
    if (launch_rank() == 0) fmt::print("{}", line.text);
    return static_cast<int>(ExitCode::ok);
  }
  try {
    return run_job(line.options);
  } catch (const std::exception& e) {  // before MPI was up
    complain(e.what(), ExitCode::io);
    return static_cast<int>(ExitCode::io);
  }
}
