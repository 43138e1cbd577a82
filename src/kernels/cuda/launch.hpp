#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/backend.hpp"
#include "kernels/cuda/memory.hpp"

namespace reap::cuda {

/// What kernels adapt to.
struct DeviceInfo {
  int index;       // as the CUDA runtime counts
  int capability;  // 90 for compute capability 9.0
  int multiprocessors;
  std::size_t shared_bytes;  // most dynamic shared memory of a block, after cudaFuncSetAttribute
};

/// What every operation runs with. All its work goes to `stream`, in order; only what is said to wait does.
struct Launch {
  cudaStream_t stream;
  Compute compute;
  DeviceInfo device;
  Scratch* scratch;  // device memory for the call at hand
  Staging* staging;  // host memory on its way to the device and back
};

}  // namespace reap::cuda
