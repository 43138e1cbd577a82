#pragma once

#include <filesystem>
#include <vector>

#include "driver/copy_file.hpp"
#include "driver/output_plan.hpp"
#include "driver/write_checkpoint.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"

namespace reap {

/// Writes the safetensors files of an output into its temporary directory, shared out over the ranks; those that an
/// interrupted job has finished are kept, all else that it left is removed. Collective. @throws SharedError
/// @return [file] digests, on every rank
std::vector<FileDigests> all_write_files(const Comm& world, const Checkpoint& source,
                                         const std::vector<OutputFile>& files, const std::filesystem::path& directory,
                                         const WriteEvents& events);

}  // namespace reap
