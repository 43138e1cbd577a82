// The entry point of reap_cuda.so. See kernels/cuda_module.hpp for the other side.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/nccl.hpp"
#include "kernels/cuda_entry.hpp"
#include "kernels/error.hpp"

namespace reap::cuda {
namespace {

const char* find_devices(CudaEntry::Found found, void* devices) {
  int count = 0;  // cudaGetDeviceCount leaves it alone when there is no driver
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  if (count == 0) return "no CUDA device";
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp p;
    if (const cudaError_t asked = cudaGetDeviceProperties(&p, device); asked != cudaSuccess) {
      return cudaGetErrorString(asked);
    }
    char bus_id[32];
    if (const cudaError_t asked = cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, device); asked != cudaSuccess) {
      return cudaGetErrorString(asked);
    }
    char text[512];
    std::snprintf(text, sizeof text, "%s (sm_%d%d, %.1f GiB)", p.name, p.major, p.minor,
                  static_cast<double>(p.totalGlobalMem) / (1024.0 * 1024.0 * 1024.0));
    found(devices, text, bus_id, static_cast<std::int64_t>(p.totalGlobalMem));
  }
  return nullptr;
}

Backend* make_backend(Compute compute, int device) { return new CudaBackend(compute, device); }

DeviceComm* make_comm(Backend& backend, const std::string& id, int rank, int ranks) {
  return static_cast<CudaBackend&>(backend).make_comm(id, rank, ranks).release();
}

constexpr CudaEntry kEntry{REAP_BUILT_FROM, find_devices, make_backend, new_comm_id, make_comm};

}  // namespace
}  // namespace reap::cuda

extern "C" __attribute__((visibility("default"))) const reap::CudaEntry* reap_cuda_open(std::string (*scopes)()) {
  reap::borrow_scopes(scopes);
  // A kernel that is loaded when it is first launched waits for the device, and so for a transfer between GPUs that
  // waits for this rank. Before CUDA begins; the user's word goes first.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  return &reap::cuda::kEntry;
}
