#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/device_comm.hpp"

namespace reap {

struct CudaDevice {
  std::string name;    // "NVIDIA H200 (sm_90, 139.8 GiB)"
  std::string bus_id;  // "0000:1b:00.0": the same for everyone who sees it on this node
  std::int64_t memory_bytes = 0;
};

/// What the CUDA module finds on this machine.
struct CudaDevices {
  std::vector<CudaDevice> devices;  // the visible ones, as CUDA counts them
  std::string why_none;             // when there are none: not built, not loadable, no driver, no device
};

/// Opens reap_cuda.so, which lies beside the program and exists in builds with CUDA only, and asks it for devices.
/// The program itself links no CUDA library: it starts in milliseconds, with or without CUDA installed.
CudaDevices find_cuda_devices();

/// The CUDA backend on one of those devices, counted from 0. Several may share a device.
/// @throws Error(usage) when there is no such device, Error(io) when it cannot be used
std::unique_ptr<Backend> make_cuda_backend(Compute compute, int device);

/// A name for a communicator between GPUs, which one of its ranks gives to all. @throws Error(usage) without NCCL
std::string new_device_comm_id();
/// The communicator of that name, by NCCL. Returns at once: see DeviceComm::ready().
/// @param backend  one of make_cuda_backend; every rank of the communicator has a GPU of its own
/// @throws Error(usage) without NCCL
std::unique_ptr<DeviceComm> make_device_comm(Backend& backend, const std::string& id, int rank, int ranks);

}  // namespace reap
