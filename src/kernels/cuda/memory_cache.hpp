#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

namespace reap::cuda {

/// The memory of one device. What is released stays allocated, for the next one who wants as much: cudaFree waits for
/// all that the device does, transfers between GPUs among it, and cudaMalloc may. Layers that come and go are of the
/// same sizes again and again. Open to all threads.
class MemoryCache {
 public:
  explicit MemoryCache(int device) : device_{device} {}

  /// Memory that none of the known streams uses any more; waits until it is so.
  /// @throws Error(io) when there is not as much
  void* allocate(std::size_t bytes);
  /// Queued work may still use it, on streams that are known.
  void release(void* memory) noexcept;

  /// Streams whose work uses this memory. Those between GPUs are none of them: who releases what they use has waited.
  void add_stream(cudaStream_t stream);
  void remove_stream(cudaStream_t stream) noexcept;

  /// Gives back to the device what nobody has: to others who allocate there. Waits for the device.
  void trim() noexcept;

 private:
  struct Block {
    void* memory = nullptr;
    std::vector<cudaEvent_t> last_uses;  // one of each stream that there was when it was released
  };
  std::optional<Block> take(std::size_t size);

  int device_;
  std::mutex mutex_;
  std::vector<cudaStream_t> streams_;
  std::unordered_map<void*, std::size_t> held_;  // sizes of what somebody has
  std::multimap<std::size_t, Block> free_;
};

constexpr int kMaxDevices = 64;

/// That of device `index`, below kMaxDevices.
MemoryCache& memory_cache(int index);

}  // namespace reap::cuda
