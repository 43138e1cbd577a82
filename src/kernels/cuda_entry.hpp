#pragma once

#include <string>

#include "kernels/backend.hpp"
#include "kernels/device_comm.hpp"

namespace reap {

/// What reap_cuda.so offers. Both sides are built from this header; `built_from` tells when they were not together.
struct CudaEntry {
  const char* built_from;
  /// Calls `found` for every device, or returns why there are none (null when there are some).
  using Found = void (*)(void* devices, const char* name, const char* bus_id, std::int64_t memory_bytes);
  const char* (*devices)(Found found, void* devices);
  Backend* (*make_backend)(Compute compute, int device);
  std::string (*new_comm_id)();
  DeviceComm* (*make_comm)(Backend& backend, const std::string& id, int rank, int ranks);
};

/// The one entry point, extern "C" under kCudaEntryName. `scopes` names the places that errors thrown in the module
/// come from: it has its own copy of kernels/error.cpp.
using OpenCuda = const CudaEntry* (*)(std::string (*scopes)());
constexpr const char* kCudaEntryName = "reap_cuda_open";

}  // namespace reap
