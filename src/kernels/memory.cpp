#include <cstdlib>

#include "kernels/buffer.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and one AVX-512 register

void* allocate_on_host(std::size_t bytes) {
  // aligned_alloc wants a multiple of the alignment; a size that wraps around when rounded up cannot be had anyway.
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = rounded >= bytes ? std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded) : nullptr;
  if (memory == nullptr) {
    fail(ExitCode::io,
         "out of memory: {} bytes ({:.1f} GiB) of host memory could not be allocated; use more ranks or nodes", bytes,
         static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0));
  }
  return memory;
}

void release_on_host(void* memory) noexcept { std::free(memory); }

}  // namespace

const Memory host_memory{"host", allocate_on_host, release_on_host};

}  // namespace reap
