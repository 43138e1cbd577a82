#include "kernels/cuda/check.hpp"

namespace reap::cuda {

void fail_at(ExitCode code, const std::string& what, const char* file, int line) {
  throw Error(code, what + " (" + file + ":" + std::to_string(line) + ")");
}

void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  fail_at(ExitCode::io,
          std::string("CUDA: ") + cudaGetErrorString(status) + ", in " + call +
              "; if it comes again, run on another device, or with --device cpu",
          file, line);
}

}  // namespace reap::cuda
