#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernels/backend.hpp"
#include "kernels/cuda/team.hpp"

namespace reap::cuda {

/// Large transfers between files or ordinary host memory and a device. Several threads share one out, each with pinned
/// memory of its own, two pieces by turns: one is filled or emptied while the device has the other.
class HostTransfer {
 public:
  explicit HostTransfer(int device);
  ~HostTransfer();
  HostTransfer(const HostTransfer&) = delete;
  HostTransfer& operator=(const HostTransfer&) = delete;

  /// Queues copies of all `bytes` bytes that `read` gives to the device. On return all have been read.
  /// @throws what `read` throws; some of the copies may have been queued by then
  void upload(cudaStream_t stream, void* to, std::int64_t bytes, const ReadBytes& read);
  /// Copies to the host, after what `stream` has been told before. All is there on return.
  void download(cudaStream_t stream, void* to_host, const void* from, std::int64_t bytes);

 private:
  // One thread copies some 5 to 10 GB/s out of the page cache or of memory: several come near what PCIe takes, and file
  // systems that answer slowly want several questions at once.
  static constexpr std::size_t kThreads = 8;
  static constexpr std::int64_t kMostPieceBytes = std::int64_t{2} << 20;
  static constexpr std::int64_t kLeastPieceBytes = std::int64_t{128} << 10;

  struct Piece {
    std::byte* data = nullptr;
    cudaEvent_t copied = nullptr;  // the device is done with it
  };
  struct Lane {
    std::array<Piece, 2> pieces;
    std::size_t turn = 0;
  };

  /// Calls work(piece, begin, count) for every part of a transfer, by all threads, with pieces that nobody uses.
  void share_out(std::int64_t bytes,
                 const std::function<void(const Piece& piece, std::int64_t begin, std::size_t count)>& work);

  int device_;
  std::byte* pinned_ = nullptr;
  std::array<Lane, kThreads> lanes_{};  // by thread
  Team team_{kThreads};                 // last: its threads use all of the above
};

}  // namespace reap::cuda
