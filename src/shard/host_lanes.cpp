#include "shard/host_lanes.hpp"

#include <algorithm>
#include <utility>

#include "shard/room.hpp"

namespace reap {
namespace {

std::int64_t bytes_of(const Link::Lane& lane, std::span<const std::int64_t> start) {
  return lane.item_bytes * start.back();
}

}  // namespace

std::span<const Link::Lane> HostLanes::take(std::span<const Link::Lane> lanes) {
  given_ = lanes;
  host_.assign(lanes.begin(), lanes.end());
  if (&backend_.memory() == &host_memory) return host_;
  arrays_.resize(std::max(arrays_.size(), lanes.size()));
  for (std::size_t i = 0; i < host_.size(); ++i) {
    Link::Lane& lane = host_[i];
    if (lane.place == Link::Lane::Place::host) continue;
    const std::int64_t send_bytes = bytes_of(lane, lane.send_start);
    make_room(arrays_[i].send, host_memory, send_bytes);
    make_room(arrays_[i].receive, host_memory, bytes_of(lane, lane.receive_start));
    backend_.download(arrays_[i].send.data(), lane.send, static_cast<std::size_t>(send_bytes));
    lane.send = arrays_[i].send.data();
    lane.receive = arrays_[i].receive.data();
  }
  backend_.synchronize();
  return host_;
}

void HostLanes::bring_back() {
  for (std::size_t i = 0; i < host_.size(); ++i) {
    if (host_[i].receive == given_[i].receive) continue;
    backend_.upload(given_[i].receive, host_[i].receive,
                    static_cast<std::size_t>(bytes_of(host_[i], host_[i].receive_start)));
  }
}

void start_exchange(Transfer& transfer, const Comm& group, std::span<const Link::Lane> lanes, int tag) {
  const auto part = [](const Link::Lane& lane, std::span<const std::int64_t> start, int shard) {
    const auto s = static_cast<std::size_t>(shard);
    return std::pair(start[s] * lane.item_bytes, (start[s + 1] - start[s]) * lane.item_bytes);
  };
  for (int i = 1; i < group.size(); ++i) {
    const int shard = (group.rank() + i) % group.size();
    for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
      const auto [at, bytes] = part(lanes[lane], lanes[lane].receive_start, shard);
      transfer.start_receive(lanes[lane].receive + at, bytes, shard, tag + static_cast<int>(lane), group.handle());
    }
  }
  for (int i = 1; i < group.size(); ++i) {
    const int shard = (group.rank() + i) % group.size();
    for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
      const auto [at, bytes] = part(lanes[lane], lanes[lane].send_start, shard);
      transfer.start_send(lanes[lane].send + at, bytes, shard, tag + static_cast<int>(lane), group.handle());
    }
  }
}

}  // namespace reap
