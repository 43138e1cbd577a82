#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "driver/log.hpp"
#include "driver/options.hpp"
#include "kernels/backend.hpp"
#include "shard/comm.hpp"

namespace reap {

/// What this rank computes on.
struct Device {
  int gpu = -1;                   // as CUDA counts the visible ones; -1 = the CPU
  std::int64_t memory_bytes = 0;  // what this rank may use of the GPU's memory; 0 on the CPU
  bool shared = false;            // other ranks compute on the same GPU
};

/// Either every rank computes on a GPU or none does. The ranks of a node take its visible GPUs by turns; where there
/// are fewer than ranks, some share one. The log says what was chosen and why.
/// @throws SharedError(usage) when `wanted` is cuda and a rank has no GPU. Collective.
Device all_choose_device(const Comm& world, DeviceChoice wanted, Log& log);

/// A backend there. Several may be made.
std::unique_ptr<Backend> make_backend(const Device& device, Compute compute, int threads, CpuIsa isa);

}  // namespace reap
