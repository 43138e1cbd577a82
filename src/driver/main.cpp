#include <fmt/format.h>
#include <mpi.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "driver/commands.hpp"
#include "driver/stop_request.hpp"
#include "kernels/check.hpp"

namespace {

using reap::ExitCode;

/// MPI from here to the end of the job. Threads of a rank never call MPI, so funneled is all we ask for.
class MpiSession {
 public:
  MpiSession() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  }
  ~MpiSession() { MPI_Finalize(); }
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

void complain(const char* what) { fmt::print(stderr, "reap_dist: error: {}\n", what); }

/// The one place where an error of a single rank ends the job: the others may be waiting for this one.
int abort_job(ExitCode code, const char* what) {
  complain(what);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  return static_cast<int>(code);
}

void run_command(const reap::Comm& world, const reap::Options& options) {
  std::unique_ptr<reap::Log> log;
  std::unique_ptr<reap::Progress> progress;
  world.all_try([&] {
    log = std::make_unique<reap::Log>(options.log_dir, world.rank());
    progress = std::make_unique<reap::Progress>(*log, world.rank(), options.metrics);
  });
  reap::Pulse pulse(world, std::chrono::duration<double>(options.timeout_seconds));
  world.on_wait([&] { pulse.beat(); });
  reap::Job job{world, options, *log, *progress, pulse};
  reap::find_command(options.command)->run(job);
  world.on_wait({});
}

int run_job(const reap::Options& options) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of write(), with a name, not a signal
  const MpiSession session;
  if (!options.state.empty()) reap::install_stop_handlers();  // after MPI_Init, which may set handlers of its own
  const reap::Comm world(MPI_COMM_WORLD);
  const reap::Scope scope(fmt::format("rank {}", world.rank()));
  try {
    run_command(world, options);
    return static_cast<int>(ExitCode::ok);
  } catch (const reap::SharedError& e) {
    if (world.rank() == 0) complain(e.what());
    return static_cast<int>(e.code());
  } catch (const reap::Error& e) {
    return abort_job(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return abort_job(
        ExitCode::io,
        fmt::format("rank {}: out of memory; use more ranks or a smaller --block-tokens", world.rank()).c_str());
  } catch (const std::filesystem::filesystem_error& e) {
    return abort_job(ExitCode::io, fmt::format("rank {}: {}", world.rank(), e.what()).c_str());
  } catch (const std::exception& e) {
    return abort_job(ExitCode::bug,
                     fmt::format("rank {}: {}; this is a bug of reap_dist", world.rank(), e.what()).c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  reap::CommandLine line;
  try {
    line = reap::parse_command_line(argc, argv);
  } catch (const reap::Error& e) {
    if (launch_rank() == 0) complain(e.what());
    return static_cast<int>(e.code());
  }
  if (!line.text.empty()) {
    if (launch_rank() == 0) fmt::print("{}", line.text);
    return static_cast<int>(ExitCode::ok);
  }
  return run_job(line.options);
}
