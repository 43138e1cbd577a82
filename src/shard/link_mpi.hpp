#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/comm.hpp"
#include "shard/link.hpp"
#include "shard/placement.hpp"
#include "shard/transfer.hpp"

namespace reap {

/// The link over MPI, through host memory. Collective over `world`, whose ranks are those of the placement's grid.
/// @param hidden         width of the hidden states
/// @param coming         rows of the blocks that will come from the stage before, in order
/// @param message_bytes  the most that one message carries, the same on every rank
std::unique_ptr<Link> make_mpi_link(const Comm& world, const Placement& placement, Backend& backend,
                                    std::int64_t hidden, std::vector<std::int64_t> coming,
                                    std::int64_t message_bytes = kMessageBytes);

}  // namespace reap
