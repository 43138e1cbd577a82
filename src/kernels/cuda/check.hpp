#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/error.hpp"

// Checks for sources that nvcc compiles: kernels/check.hpp brings in fmt, which it cannot.
namespace reap::cuda {

[[noreturn]] void fail_at(ExitCode code, const std::string& what, const char* file, int line);

/// Throws Error(io) when `status` is that of a failed call: the device is gone, out of memory or misused.
void check(cudaError_t status, const char* call, const char* file, int line);

}  // namespace reap::cuda

/// Every call of the CUDA runtime goes through this.
#define REAP_CUDA(call) ::reap::cuda::check((call), #call, __FILE__, __LINE__)

/// After every kernel launch.
#define REAP_CUDA_LAUNCHED() ::reap::cuda::check(cudaGetLastError(), "kernel launch", __FILE__, __LINE__)

/// An invariant of our own code (exit code 70), as REAP_CHECK. `what` is anything that std::string is made from.
#define REAP_CUDA_REQUIRE(condition, what)                                                      \
  do {                                                                                          \
    if (!(condition)) ::reap::cuda::fail_at(::reap::ExitCode::bug, (what), __FILE__, __LINE__); \
  } while (false)
