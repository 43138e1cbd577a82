#pragma once

#include <filesystem>
#include <memory>

#include "kernels/error.hpp"
#include "shard/comm.hpp"

namespace reap {

/// A thread that watches over this process for what the main thread cannot see itself:
///   - The main thread neither notes an operation nor moves or beats any more, for a quarter longer than the timeout of
///     the job: blocked in a read of a file system that hangs, or in a call of MPI that waits (MPI_Finalize). The
///     process ends with ExitCode::peer, after a line that says where.
///   - The next rank on this node dies. mpirun then ends the others with SIGTERM and, a second later, SIGKILL, and
///     names the rank alone; a line says where that rank was.
class Watchdog {
 public:
  /// @param timeout_seconds  0 = for ever
  /// @param rank             of this process
  Watchdog(double timeout_seconds, int rank);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Gets to know the next rank on this node. Collective.
  /// @param record  of this rank's operations, as another process can open it; empty = none
  void all_meet(const Comm& world, const std::filesystem::path& record);

  /// Ends the process with `code` in ten seconds, should it still be there.
  void end_soon(ExitCode code);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reap
