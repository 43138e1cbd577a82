#include "kernels/cuda_module.hpp"

#include <dlfcn.h>

#include <cstring>

#include "kernels/check.hpp"
#include "kernels/cuda_entry.hpp"

namespace reap {
namespace {

constexpr const char* kFile = "reap_cuda.so";

void add_device(void* devices, const char* name, const char* bus_id, std::int64_t memory_bytes) {
  static_cast<std::vector<CudaDevice>*>(devices)->push_back({name, bus_id, memory_bytes});
}

/// What the module offers, or null and why it cannot be had.
const CudaEntry* open_module(std::string& why) {
  // Never closed: CUDA's own libraries do not survive being unloaded.
  void* module = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    why = dlerror();
    return nullptr;
  }
  const auto open = reinterpret_cast<OpenCuda>(dlsym(module, kCudaEntryName));
  const CudaEntry* entry = open != nullptr ? open(scope_path) : nullptr;
  if (entry != nullptr && std::strcmp(entry->built_from, REAP_BUILT_FROM) == 0) return entry;
  why = std::string(kFile) + " is of another build than the program";
  return nullptr;
}

/// What the module offers to those who have a GPU already.
const CudaEntry& opened_module() {
  std::string why;
  const CudaEntry* entry = open_module(why);
  REAP_CHECK(entry != nullptr, "{}", why);
  return *entry;
}

}  // namespace

CudaDevices find_cuda_devices() {
  CudaDevices found;
  const CudaEntry* entry = open_module(found.why_none);
  if (entry == nullptr) return found;
  if (const char* why = entry->devices(add_device, &found.devices)) {
    found.devices.clear();
    found.why_none = why;
  }
  return found;
}

std::unique_ptr<Backend> make_cuda_backend(Compute compute, int device) {
  const CudaDevices found = find_cuda_devices();
  if (found.devices.empty()) fail(ExitCode::usage, "no GPU can be used: {}", found.why_none);
  if (device < 0 || static_cast<std::size_t>(device) >= found.devices.size()) {
    fail(ExitCode::usage, "there is no GPU {}: {} were found", device, found.devices.size());
  }
  return std::unique_ptr<Backend>(opened_module().make_backend(compute, device));
}

std::string new_device_comm_id() { return opened_module().new_comm_id(); }

std::unique_ptr<DeviceComm> make_device_comm(Backend& backend, const std::string& id, int rank, int ranks) {
  return std::unique_ptr<DeviceComm>(opened_module().make_comm(backend, id, rank, ranks));
}

}  // namespace reap
