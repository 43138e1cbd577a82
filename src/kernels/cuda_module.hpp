#pragma once

#include <string>
#include <vector>

namespace reap {

/// What the CUDA module finds on this machine.
struct CudaDevices {
  std::vector<std::string> names;  // "NVIDIA H200 (sm_90, 139.8 GiB)"
  std::string why_none;            // when there are none: not built, not loadable, no driver, no device
};

/// Opens reap_cuda.so, which lies beside the program and exists in builds with CUDA only, and asks it for devices.
/// The program itself links no CUDA library: it starts in milliseconds, with or without CUDA installed.
CudaDevices find_cuda_devices();

}  // namespace reap
