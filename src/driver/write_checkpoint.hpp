#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "driver/output_plan.hpp"
#include "driver/plan.hpp"
#include "driver/quantizer.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/families.hpp"

namespace reap {

/// What there is to do, known before the first byte is written.
struct WriteWork {
  std::int64_t bytes = 0;       // to be written, by all ranks
  std::int64_t own_bytes = 0;   // by this one
  std::int64_t kept_files = 0;  // finished by an interrupted job
  std::int64_t kept_bytes = 0;
};

/// Calls back while a checkpoint is written; any may be empty.
struct WriteEvents {
  /// Not called but used: computes what is not copied. Needed where options.quantize is set.
  Quantizer* quantizer = nullptr;
  std::function<void(const WriteWork& work)> begin;
  /// Bytes written since the last call, by one thread at a time. May throw to stop the job.
  std::function<void(std::int64_t bytes)> progress;
  /// Collective; called with the finished directory before it gets its final name, which it does not get when this
  /// throws a SharedError.
  std::function<void(const std::filesystem::path& written)> all_check;
};

/// Writes the pruned model in parallel, each rank whole files, into a temporary directory beside `output`, which gets
/// its name once all of it is on the disk. An existing `output` is refused (Error(bad_input)) unless options.overwrite.
/// Nothing stands under the final name unless it is complete. The files written are the same bytes for any number of
/// ranks. Collective.
///
/// Files that a killed or stopped job of the same source, plan and options has finished are kept: all_check is trusted
/// to prove them; without one they are read again and compared with the digests of that job. When any rank fails,
/// nothing is left behind, except for the next job when this one is stopped on request or has lost a rank.
/// @throws Error(io) on every rank, naming the file, when any rank fails; Error(bad_input) when plan and model disagree
void all_write_checkpoint(const Comm& world, const Checkpoint& source, const Model& model, const Plan& plan,
                          const std::filesystem::path& output, const WriteOptions& options,
                          const WriteEvents& events = {});

}  // namespace reap
