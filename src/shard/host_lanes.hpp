#pragma once

#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/link.hpp"
#include "shard/transfer.hpp"

namespace reap {

/// The lanes of exchanges as MPI can take them: arrays of a backend that has memory of its own are copied to the host,
/// and what has come is copied back. The memory for that is kept.
class HostLanes {
 public:
  explicit HostLanes(Backend& backend) : backend_{backend} {}

  /// The lanes of the next exchange, in host memory.
  std::span<const Link::Lane> take(std::span<const Link::Lane> lanes);
  void bring_back();

 private:
  struct Arrays {
    Buffer<std::byte> send, receive;
  };
  Backend& backend_;
  std::span<const Link::Lane> given_;
  std::vector<Link::Lane> host_;
  std::vector<Arrays> arrays_;  // by lane
};

/// Starts the messages of host lanes with every other rank of the group. @param tag  of the first lane
void start_exchange(Transfer& transfer, const Comm& group, std::span<const Link::Lane> lanes, int tag);

}  // namespace reap
