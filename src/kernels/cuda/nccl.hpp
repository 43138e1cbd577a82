#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "kernels/device_comm.hpp"

namespace reap::cuda {

/// A name for a communicator that is to be made, for all its ranks. @throws Error(usage) without NCCL
std::string new_comm_id();

/// NCCL's communicator of `ranks` ranks, each with a device of its own. Returns at once: see DeviceComm::ready().
/// @param stream  of the backend
std::unique_ptr<DeviceComm> make_nccl_comm(int device, cudaStream_t stream, const std::string& id, int rank, int ranks);

}  // namespace reap::cuda
