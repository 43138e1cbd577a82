#pragma once

#include "driver/device.hpp"
#include "driver/log.hpp"
#include "driver/options.hpp"
#include "shard/link_device.hpp"

namespace reap {

/// How hidden states and expert outputs get from rank to rank: NCCL where every rank has a GPU of its own, MPI through
/// host memory where not. The log says which, and why. Collective.
/// @param backend  of this rank, which the transport works for
/// @return what connects devices; empty = MPI
/// @throws SharedError(usage) when `wanted` is nccl and it cannot be had
ConnectDevices all_choose_transport(const Comm& world, TransportChoice wanted, const Device& device, Backend& backend,
                                    Log& log);

}  // namespace reap
