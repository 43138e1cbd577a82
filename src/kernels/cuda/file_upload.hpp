#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/backend.hpp"
#include "kernels/cuda/team.hpp"

namespace reap::cuda {

/// Brings weights from files to a device. Several threads read at a time, each straight into pinned memory of its own,
/// two pieces by turns: one is read while the device takes the other.
class FileUpload {
 public:
  explicit FileUpload(int device);
  ~FileUpload();
  FileUpload(const FileUpload&) = delete;
  FileUpload& operator=(const FileUpload&) = delete;

  /// Queues copies of all `bytes` bytes that `read` gives to the device. On return all have been read.
  /// @throws what `read` throws; some of the copies may have been queued by then
  void upload(cudaStream_t stream, std::byte* to, std::int64_t bytes, const ReadBytes& read);

 private:
  // One thread copies some 5 GB/s out of the page cache: several come near what PCIe takes, and file systems that
  // answer slowly want several questions at once.
  static constexpr std::size_t kThreads = 8;
  static constexpr std::int64_t kMostPieceBytes = std::int64_t{2} << 20;
  static constexpr std::int64_t kLeastPieceBytes = std::int64_t{128} << 10;

  struct Piece {
    std::byte* data = nullptr;
    cudaEvent_t sent = nullptr;  // the device has taken what lay in it
  };
  struct Lane {
    std::array<Piece, 2> pieces;
    std::size_t turn = 0;
  };

  int device_;
  std::byte* pinned_ = nullptr;
  std::array<Lane, kThreads> lanes_{};  // by thread
  Team team_{kThreads};                 // last: its threads use all of the above
};

}  // namespace reap::cuda
