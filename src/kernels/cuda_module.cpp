#include "kernels/cuda_module.hpp"

#include <dlfcn.h>

#include <cstring>

#include "kernels/check.hpp"
#include "kernels/cuda_entry.hpp"

namespace reap {
namespace {

constexpr const char* kFile = "reap_cuda.so";

void add_name(void* names, const char* name) { static_cast<std::vector<std::string>*>(names)->emplace_back(name); }

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

}  // namespace

CudaDevices find_cuda_devices() {
  CudaDevices devices;
  const CudaEntry* entry = open_module(devices.why_none);
  if (entry == nullptr) return devices;
  if (const char* why = entry->devices(add_name, &devices.names)) {
    devices.names.clear();
    devices.why_none = why;
  }
  return devices;
}

std::unique_ptr<Backend> make_cuda_backend(Compute compute, int device) {
  const CudaDevices devices = find_cuda_devices();
  if (devices.names.empty()) fail(ExitCode::usage, "no GPU can be used: {}", devices.why_none);
  if (device < 0 || static_cast<std::size_t>(device) >= devices.names.size()) {
    fail(ExitCode::usage, "there is no GPU {}: {} were found", device, devices.names.size());
  }
  std::string why;
  return std::unique_ptr<Backend>(open_module(why)->make_backend(compute, device));
}

}  // namespace reap
