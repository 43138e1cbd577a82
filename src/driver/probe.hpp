#pragma once

#include <filesystem>

#include "driver/machine.hpp"
#include "kernels/backend.hpp"
#include "shard/comm.hpp"
#include "shard/model.hpp"

namespace reap {

/// Where a probe reads and writes.
struct ProbeFolders {
  std::filesystem::path read;   // safetensors files in it are read
  std::filesystem::path write;  // a temporary file is written here
};

/// Measures what the ranks of this job have, all at once as a run would use it, and puts it into `machine`: products of
/// the experts' width, laying weights out, memory, reading, writing, and the link of ranks 0 and 1. Takes a few
/// seconds. What cannot be measured stays as it is. Collective. @throws SharedError when writing fails
void all_probe(const Comm& world, const Model& model, Backend& backend, int threads, const ProbeFolders& folders,
               Machine& machine);

}  // namespace reap
