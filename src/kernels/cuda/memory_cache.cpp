#include "kernels/cuda/memory_cache.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/event.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;  // what cudaMalloc gives

std::string gibibytes(std::size_t bytes) {
  const double hundredths = static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0) * 100.0;
  const auto rounded = static_cast<std::uint64_t>(hundredths);
  const std::string fraction = std::to_string(rounded % 100);
  return std::to_string(rounded / 100) + (fraction.size() == 1 ? ".0" : ".") + fraction + " GiB";
}

[[noreturn]] void fail_out_of_memory(int device, std::size_t bytes) {
  std::size_t free = 0, total = 0;
  REAP_CUDA(cudaMemGetInfo(&free, &total));
  throw Error(ExitCode::io, "out of memory: " + std::to_string(bytes) + " bytes (" + gibibytes(bytes) +
                                ") could not be allocated on GPU " + std::to_string(device) + ", where " +
                                gibibytes(free) + " of " + gibibytes(total) +
                                " are free; use more ranks, stream the weights, or lower --block-tokens");
}

}  // namespace

void* MemoryCache::allocate(std::size_t bytes) {
  // An empty array has an address too.
  const auto size =
      static_cast<std::size_t>(round_up(std::max<std::int64_t>(static_cast<std::int64_t>(bytes), 1), kAlignment));
  // Not set back afterwards: even to name another device would make a context there, in its memory.
  REAP_CUDA(cudaSetDevice(device_));
  void* memory = nullptr;
  if (const std::optional<Block> block = take(size)) {
    for (cudaEvent_t event : block->last_uses) {
      REAP_CUDA(cudaEventSynchronize(event));
      REAP_CUDA(cudaEventDestroy(event));
    }
    memory = block->memory;
  } else {
    cudaError_t status = cudaMalloc(&memory, size);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // or the next check would report it again
      trim();
      status = cudaMalloc(&memory, size);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail_out_of_memory(device_, bytes);
    }
    REAP_CUDA(status);
  }
  const std::lock_guard lock(mutex_);
  held_.emplace(memory, size);
  return memory;
}

/// A free block of just this size, one that is no longer in use where there is one.
std::optional<MemoryCache::Block> MemoryCache::take(std::size_t size) {
  const std::lock_guard lock(mutex_);
  const auto [first, last] = free_.equal_range(size);
  if (first == last) return std::nullopt;
  const auto idle = std::find_if(first, last, [](const auto& sized) {
    return std::all_of(sized.second.last_uses.begin(), sized.second.last_uses.end(), is_over);
  });
  const auto taken = idle != last ? idle : first;
  Block block = std::move(taken->second);
  free_.erase(taken);
  return block;
}

void MemoryCache::release(void* memory) noexcept {
  cudaSetDevice(device_);
  const std::lock_guard lock(mutex_);
  const auto held = held_.find(memory);
  Block block{memory, {}};
  for (cudaStream_t stream : streams_) {
    cudaEvent_t used = nullptr;
    if (cudaEventCreateWithFlags(&used, cudaEventDisableTiming) != cudaSuccess) continue;  // the device is lost
    cudaEventRecord(used, stream);
    block.last_uses.push_back(used);
  }
  free_.emplace(held->second, std::move(block));
  held_.erase(held);
}

void MemoryCache::add_stream(cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  streams_.push_back(stream);
}

void MemoryCache::remove_stream(cudaStream_t stream) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase(streams_, stream);
}

void MemoryCache::trim() noexcept {
  const std::lock_guard lock(mutex_);
  for (const auto& [size, block] : free_) {
    for (cudaEvent_t event : block.last_uses) cudaEventDestroy(event);
    cudaFree(block.memory);  // waits for what is queued and may use it
  }
  free_.clear();
}

MemoryCache& memory_cache(int index) {
  // Never destroyed: memory is released at any time, and the runtime may be gone before the last of it.
  static auto& all = *new std::array<std::unique_ptr<MemoryCache>, kMaxDevices>();
  static std::mutex mutex;
  REAP_CUDA_REQUIRE(index >= 0 && index < kMaxDevices, "device " + std::to_string(index));
  const std::lock_guard lock(mutex);
  std::unique_ptr<MemoryCache>& cache = all[static_cast<std::size_t>(index)];
  if (!cache) cache = std::make_unique<MemoryCache>(index);
  return *cache;
}

}  // namespace reap::cuda
