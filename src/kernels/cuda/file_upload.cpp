#include "kernels/cuda/file_upload.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "kernels/cuda/check.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {

FileUpload::FileUpload(int device) : device_{device} {
  REAP_CUDA(cudaSetDevice(device));
  constexpr std::size_t kPieces = kThreads * 2;
  REAP_CUDA(cudaMallocHost(reinterpret_cast<void**>(&pinned_), kPieces * kMostPieceBytes));
  std::byte* next = pinned_;
  for (Lane& lane : lanes_) {
    for (Piece& piece : lane.pieces) {
      piece.data = std::exchange(next, next + kMostPieceBytes);
      // Who waits for it sleeps: spinning, these threads would take the cores from others.
      REAP_CUDA(cudaEventCreateWithFlags(&piece.sent, cudaEventDisableTiming | cudaEventBlockingSync));
    }
  }
}

FileUpload::~FileUpload() {
  for (const Lane& lane : lanes_) {
    for (const Piece& piece : lane.pieces) {
      cudaEventSynchronize(piece.sent);
      cudaEventDestroy(piece.sent);
    }
  }
  cudaFreeHost(pinned_);
}

void FileUpload::upload(cudaStream_t stream, std::byte* to, std::int64_t bytes, const ReadBytes& read) {
  // Two pieces a thread where there is enough for that, so that all of them end at about the same time.
  const std::int64_t share = round_up(ceil_div(bytes, static_cast<std::int64_t>(kThreads) * 2), std::int64_t{4096});
  const std::int64_t size = std::clamp(share, kLeastPieceBytes, kMostPieceBytes);
  team_.run(ceil_div(bytes, size), [&](int thread, std::int64_t item) {
    REAP_CUDA(cudaSetDevice(device_));
    Lane& lane = lanes_[static_cast<std::size_t>(thread)];
    const Piece& piece = lane.pieces[lane.turn];
    lane.turn = (lane.turn + 1) % lane.pieces.size();
    const std::int64_t begin = item * size;
    const auto count = static_cast<std::size_t>(std::min(size, bytes - begin));
    REAP_CUDA(cudaEventSynchronize(piece.sent));  // of a turn before, or never recorded: no wait
    read(static_cast<std::uint64_t>(begin), std::span(piece.data, count));
    REAP_CUDA(cudaMemcpyAsync(to + begin, piece.data, count, cudaMemcpyHostToDevice, stream));
    REAP_CUDA(cudaEventRecord(piece.sent, stream));
  });
}

}  // namespace reap::cuda
