#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "driver/output_plan.hpp"
#include "driver/plan.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/families.hpp"

namespace reap {

/// Writes the pruned model in parallel, each rank whole files, into a temporary directory beside `output`, which gets
/// its name once all of it is on the disk. An existing `output` is refused (Error(bad_input)) unless options.overwrite.
/// Nothing stands under the final name unless it is complete; nothing is left behind when any rank fails. The files
/// written are the same bytes for any number of ranks. Collective.
/// @param progress  called on each rank with bytes written since the last call, by one thread at a time; may be empty
/// @param all_check  collective; called with the finished directory before it gets its final name, which it does not
///                   get when this throws (a SharedError); may be empty
/// @throws Error(io) on every rank, naming the file, when any rank fails; Error(bad_input) when plan and model disagree
void all_write_checkpoint(const Comm& world, const Checkpoint& source, const Model& model, const Plan& plan,
                          const std::filesystem::path& output, const WriteOptions& options,
                          const std::function<void(std::int64_t bytes)>& progress,
                          const std::function<void(const std::filesystem::path& written)>& all_check = {});

}  // namespace reap
