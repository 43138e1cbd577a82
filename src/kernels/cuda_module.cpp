#include "kernels/cuda_module.hpp"

#include <dlfcn.h>

#include <memory>

namespace reap {
namespace {

constexpr const char* kFile = "reap_cuda.so";

/// One entry point, in C: calls `found` for every device, or returns why there are none (null when there are some).
using FindDevices = const char* (*)(void (*found)(void* names, const char* name), void* names);

void add_name(void* names, const char* name) { static_cast<std::vector<std::string>*>(names)->emplace_back(name); }

}  // namespace

CudaDevices find_cuda_devices() {
  CudaDevices devices;
  // Never closed: CUDA's own libraries do not survive being unloaded.
  void* module = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    devices.why_none = dlerror();
    return devices;
  }
  const auto find = reinterpret_cast<FindDevices>(dlsym(module, "reap_cuda_devices"));
  if (find == nullptr) {
    devices.why_none = std::string(kFile) + " is not of this version";
    return devices;
  }
  if (const char* why = find(add_name, &devices.names)) devices.why_none = why;
  return devices;
}

}  // namespace reap
