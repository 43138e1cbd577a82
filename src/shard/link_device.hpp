#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/device_comm.hpp"
#include "shard/comm.hpp"
#include "shard/link.hpp"
#include "shard/placement.hpp"

namespace reap {

/// Makes the transfers between the devices of a communicator's ranks. Collective over it.
using ConnectDevices = std::function<std::unique_ptr<DeviceComm>(const Comm& comm)>;

/// The link whose hidden states, rows and outputs go from device to device; small messages and the agreement on what
/// goes next by MPI. Collective over `world`, as make_mpi_link.
std::unique_ptr<Link> make_device_link(const Comm& world, const Placement& placement, Backend& backend,
                                       std::int64_t hidden, std::vector<std::int64_t> coming,
                                       const ConnectDevices& connect);

}  // namespace reap
