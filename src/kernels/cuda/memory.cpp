#include "kernels/cuda/memory.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/memory_cache.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr std::int64_t kAlignment = 256;  // what cudaMalloc gives

template <int device>
void* allocate_on(std::size_t bytes) {
  return memory_cache(device).allocate(bytes);
}

template <int device>
void release_on(void* memory) noexcept {
  memory_cache(device).release(memory);
}

template <int... device>
std::array<Memory, sizeof...(device)> memories(std::integer_sequence<int, device...>) {
  return {Memory{"GPU", allocate_on<device>, release_on<device>}...};
}

}  // namespace

const Memory& device_memory(int index) {
  static const auto all = memories(std::make_integer_sequence<int, kMaxDevices>());
  REAP_CUDA_REQUIRE(index >= 0 && index < kMaxDevices, "device " + std::to_string(index));
  return all[static_cast<std::size_t>(index)];
}

void Scratch::reset() {
  used_ = 0;
  if (chunks_.size() <= 1) return;
  std::int64_t needed = 0;
  for (const Buffer<std::byte>& chunk : chunks_) needed += chunk.size();
  chunks_.clear();
  chunks_.emplace_back(*memory_, needed);
}

void* Scratch::take_bytes(std::int64_t bytes) {
  const std::int64_t size = round_up(std::max<std::int64_t>(bytes, 1), kAlignment);
  if (chunks_.empty() || chunks_.back().size() - used_ < size) {
    chunks_.emplace_back(*memory_, size);
    used_ = 0;
  }
  void* const memory = chunks_.back().data() + used_;
  used_ += size;
  return memory;
}

Staging::Staging() {
  for (Piece& piece : out_) {
    REAP_CUDA(cudaMallocHost(reinterpret_cast<void**>(&piece.data), kPieceBytes));
    REAP_CUDA(cudaEventCreateWithFlags(&piece.sent, cudaEventDisableTiming));
  }
  REAP_CUDA(cudaMallocHost(reinterpret_cast<void**>(&in_), kPieceBytes));
}

Staging::~Staging() {
  for (const Piece& piece : out_) {
    cudaEventDestroy(piece.sent);
    cudaFreeHost(piece.data);
  }
  cudaFreeHost(in_);
}

void Staging::upload(cudaStream_t stream, void* to, const void* from_host, std::size_t bytes) {
  constexpr std::size_t kLine = 64;
  auto* device = static_cast<std::byte*>(to);
  const auto* host = static_cast<const std::byte*>(from_host);
  while (bytes > 0) {
    if (filled_ == kPieceBytes) {
      turn_ = (turn_ + 1) % out_.size();
      filled_ = 0;
      REAP_CUDA(cudaEventSynchronize(out_[turn_].sent));  // of a turn before, or never recorded: no wait
    }
    Piece& piece = out_[turn_];
    const std::size_t part = std::min(bytes, kPieceBytes - filled_);
    std::memcpy(piece.data + filled_, host, part);
    REAP_CUDA(cudaMemcpyAsync(device, piece.data + filled_, part, cudaMemcpyHostToDevice, stream));
    REAP_CUDA(cudaEventRecord(piece.sent, stream));
    filled_ = std::min(kPieceBytes, (filled_ + part + kLine - 1) / kLine * kLine);
    device += part;
    host += part;
    bytes -= part;
  }
}

void Staging::download(cudaStream_t stream, void* to_host, const void* from, std::size_t bytes) {
  constexpr std::size_t kLine = 64;
  auto* host = static_cast<std::byte*>(to_host);
  const auto* device = static_cast<const std::byte*>(from);
  while (bytes > 0) {
    if (waiting_ == kPieceBytes) finish(stream);
    const std::size_t part = std::min(bytes, kPieceBytes - waiting_);
    REAP_CUDA(cudaMemcpyAsync(in_ + waiting_, device, part, cudaMemcpyDeviceToHost, stream));
    arrivals_.push_back({host, in_ + waiting_, part});
    waiting_ = std::min(kPieceBytes, (waiting_ + part + kLine - 1) / kLine * kLine);
    device += part;
    host += part;
    bytes -= part;
  }
}

void Staging::finish(cudaStream_t stream) {
  // After an error nobody may be there any more to take what was downloaded.
  const std::vector<Arrival> arrived = std::exchange(arrivals_, {});
  waiting_ = 0;
  REAP_CUDA(cudaStreamSynchronize(stream));
  for (const Arrival& arrival : arrived) std::memcpy(arrival.to, arrival.from, arrival.bytes);
}

std::shared_ptr<std::byte> Slabs::take(std::int64_t bytes) {
  const std::int64_t size = round_up(std::max<std::int64_t>(bytes, 1), kAlignment);
  if (!slab_ || slab_->size() - used_ < size) {
    slab_.reset();  // before the next one is allocated: it may be its last owner
    slab_ = std::make_shared<Buffer<std::byte>>(*memory_, std::max(size, kSlabBytes));
    used_ = 0;
  }
  std::byte* const memory = slab_->data() + used_;
  used_ += size;
  return {slab_, memory};
}

}  // namespace reap::cuda
