#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/buffer.hpp"

namespace reap::cuda {

/// The memory of device `index`; allocated from any thread, whatever its current device.
const Memory& device_memory(int index);

/// Device memory that operations use while they run, one stream's. Grows to the largest need and stays.
class Scratch {
 public:
  explicit Scratch(const Memory& memory) : memory_{&memory} {}

  /// Room for `count` elements, 256-byte aligned, until the next reset(): in stream order, so that a kernel already
  /// queued still has it. Contents are undefined.
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take_bytes(count * static_cast<std::int64_t>(sizeof(T))));
  }
  /// Begins an operation: all that was taken is free again.
  void reset();

 private:
  void* take_bytes(std::int64_t bytes);

  const Memory* memory_;
  std::vector<Buffer<std::byte>> chunks_;  // one, except in an operation that found it too small
  std::int64_t used_ = 0;                  // of the last chunk
};

/// Pinned host memory that transfers pass through, so that they run beside the host and at full speed.
class Staging {
 public:
  Staging();
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Queues a copy to the device. `from_host` has been read when it returns.
  void upload(cudaStream_t stream, void* to, const void* from_host, std::size_t bytes);
  /// Queues a copy to the host. `to_host` is filled by finish(), or before when much is downloaded.
  void download(cudaStream_t stream, void* to_host, const void* from, std::size_t bytes);
  /// Waits for the stream, and fills what was downloaded.
  void finish(cudaStream_t stream);

 private:
  static constexpr std::size_t kPieceBytes = std::size_t{8} << 20;

  struct Piece {
    std::byte* data = nullptr;
    cudaEvent_t sent = nullptr;  // the device has taken what lay in it
  };
  struct Arrival {
    void* to;
    const std::byte* from;
    std::size_t bytes;
  };
  std::array<Piece, 2> out_{};  // uploads, by turns
  std::size_t turn_ = 0;
  std::size_t filled_ = 0;   // of the piece whose turn it is
  std::byte* in_ = nullptr;  // downloads, from the beginning since the last finish()
  std::size_t waiting_ = 0;
  std::vector<Arrival> arrivals_;
};

/// Weights of a layer come by the hundreds and go together: taken from large slabs, they neither cost an allocation
/// each nor waste the end of a page each. A slab goes when the last weight in it does.
class Slabs {
 public:
  explicit Slabs(const Memory& memory) : memory_{&memory} {}
  /// `bytes` of device memory, 256-byte aligned, owned together with the slab that holds them.
  std::shared_ptr<std::byte> take(std::int64_t bytes);

 private:
  static constexpr std::int64_t kSlabBytes = std::int64_t{256} << 20;

  const Memory* memory_;
  std::shared_ptr<Buffer<std::byte>> slab_;
  std::int64_t used_ = 0;
};

}  // namespace reap::cuda
