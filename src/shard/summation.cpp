#include "shard/summation.hpp"

#include <algorithm>

namespace reap {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 20;  // values, on every rank

}  // namespace

Summation::Summation(const Comm& world, Backend& backend, const ConnectDevices& connect)
    : world_{world}, backend_{backend} {
  if (!connect) return;
  devices_ = connect(world);
  piece_ = {backend.memory(), kPiece};
  // The first sum makes connections, and may allocate for that. Now, when no other transfer can be in its way.
  backend.zero(piece_.data(), static_cast<std::size_t>(piece_.bytes()));
  all_sum_piece();
}

void Summation::all_sum(std::span<std::int64_t> values) {
  devices_ ? all_sum_on_devices(values) : world_.all_sum(values);
}

void Summation::all_sum_at_first(std::span<std::int64_t> values) {
  devices_ ? all_sum_on_devices(values) : world_.all_sum_at(0, values);
}

/// Always whole pieces, so that every sum goes the way of the first one.
void Summation::all_sum_on_devices(std::span<std::int64_t> values) {
  while (!values.empty()) {
    const std::span<std::int64_t> part = values.first(std::min(values.size(), static_cast<std::size_t>(kPiece)));
    backend_.upload(piece_.data(), part.data(), part.size_bytes());
    backend_.zero(piece_.data() + part.size(), static_cast<std::size_t>(piece_.bytes()) - part.size_bytes());
    all_sum_piece();
    backend_.download(part.data(), piece_.data(), part.size_bytes());
    backend_.synchronize();
    values = values.subspan(part.size());
  }
}

void Summation::all_sum_piece() {
  devices_->start_sum(std::span(piece_.data(), static_cast<std::size_t>(kPiece)));
  world_.wait_until([&] { return devices_->ready(); }, "sum over the ranks");
}

}  // namespace reap
