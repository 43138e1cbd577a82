#include "kernels/cuda/host_transfer.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "kernels/cuda/check.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {

HostTransfer::HostTransfer(int device) : device_{device} {
  REAP_CUDA(cudaSetDevice(device));
  constexpr std::size_t kPieces = kThreads * 2;
  REAP_CUDA(cudaMallocHost(reinterpret_cast<void**>(&pinned_), kPieces * kMostPieceBytes));
  std::byte* next = pinned_;
  for (Lane& lane : lanes_) {
    for (Piece& piece : lane.pieces) {
      piece.data = std::exchange(next, next + kMostPieceBytes);
      // Who waits for it sleeps: spinning, these threads would take the cores from others.
      REAP_CUDA(cudaEventCreateWithFlags(&piece.copied, cudaEventDisableTiming | cudaEventBlockingSync));
    }
  }
}

HostTransfer::~HostTransfer() {
  for (const Lane& lane : lanes_) {
    for (const Piece& piece : lane.pieces) {
      cudaEventSynchronize(piece.copied);
      cudaEventDestroy(piece.copied);
    }
  }
  cudaFreeHost(pinned_);
}

void HostTransfer::share_out(
    std::int64_t bytes, const std::function<void(const Piece& piece, std::int64_t begin, std::size_t count)>& work) {
  // Two pieces a thread where there is enough for that, so that all of them end at about the same time.
  const std::int64_t share = round_up(ceil_div(bytes, static_cast<std::int64_t>(kThreads) * 2), std::int64_t{4096});
  const std::int64_t size = std::clamp(share, kLeastPieceBytes, kMostPieceBytes);
  team_.run(ceil_div(bytes, size), [&](int thread, std::int64_t item) {
    REAP_CUDA(cudaSetDevice(device_));
    Lane& lane = lanes_[static_cast<std::size_t>(thread)];
    const Piece& piece = lane.pieces[lane.turn];
    lane.turn = (lane.turn + 1) % lane.pieces.size();
    REAP_CUDA(cudaEventSynchronize(piece.copied));  // of a turn before, or never recorded: no wait
    work(piece, item * size, static_cast<std::size_t>(std::min(size, bytes - item * size)));
  });
}

void HostTransfer::upload(cudaStream_t stream, void* to, std::int64_t bytes, const ReadBytes& read) {
  share_out(bytes, [&](const Piece& piece, std::int64_t begin, std::size_t count) {
    read(static_cast<std::uint64_t>(begin), std::span(piece.data, count));
    REAP_CUDA(cudaMemcpyAsync(static_cast<std::byte*>(to) + begin, piece.data, count, cudaMemcpyHostToDevice, stream));
    REAP_CUDA(cudaEventRecord(piece.copied, stream));
  });
}

void HostTransfer::download(cudaStream_t stream, void* to_host, const void* from, std::int64_t bytes) {
  share_out(bytes, [&](const Piece& piece, std::int64_t begin, std::size_t count) {
    REAP_CUDA(cudaMemcpyAsync(piece.data, static_cast<const std::byte*>(from) + begin, count, cudaMemcpyDeviceToHost,
                              stream));
    REAP_CUDA(cudaEventRecord(piece.copied, stream));
    REAP_CUDA(cudaEventSynchronize(piece.copied));
    std::memcpy(static_cast<std::byte*>(to_host) + begin, piece.data, count);
  });
}

}  // namespace reap::cuda
