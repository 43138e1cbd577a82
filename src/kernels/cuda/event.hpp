#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/check.hpp"

namespace reap::cuda {

/// Whether the device has come to where `event` was recorded last. @throws Error(io) when the device failed before
inline bool is_over(cudaEvent_t event) {
  const cudaError_t status = cudaEventQuery(event);
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // no error, but the check of the next launch would take it for one
    return false;
  }
  REAP_CUDA(status);
  return true;
}

}  // namespace reap::cuda
