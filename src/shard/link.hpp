#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace reap {

/// The traffic of one rank with its neighbours in the grid: with the stages before and after its own, and with the
/// other expert shards of its stage and replica.
class Link {
 public:
  virtual ~Link() = default;

  /// Waits for the next block from the previous stage and puts its hidden states into x, [rows, hidden] of the backend.
  /// Later blocks go on arriving meanwhile.
  virtual void receive(float* x, std::int64_t rows) = 0;
  /// Hands x, [rows, hidden] of the backend, to the next stage. Returns at once unless the two blocks before are
  /// still on their way; x may be changed on return.
  virtual void send(const float* x, std::int64_t rows) = 0;
  /// Waits until all that was sent has left.
  virtual void flush() = 0;

  /// Sends bytes [send_start[s], send_start[s + 1]) to expert shard s and receives as many as it sends into
  /// [receive_start[s], receive_start[s + 1]), host memory, for every other shard of the group. The own part stays
  /// untouched.
  virtual void all_exchange(const std::byte* send, std::span<const std::int64_t> send_start, std::byte* receive,
                            std::span<const std::int64_t> receive_start) = 0;

  /// Moves transfers on. They move only inside such calls, so it is called between the operations of a layer.
  virtual void progress() = 0;
};

/// The link of a rank that has no neighbours.
class NoLink final : public Link {
 public:
  void receive(float* x, std::int64_t rows) override;
  void send(const float* x, std::int64_t rows) override;
  void flush() override {}
  void all_exchange(const std::byte* send, std::span<const std::int64_t> send_start, std::byte* receive,
                    std::span<const std::int64_t> receive_start) override;
  void progress() override {}
};

}  // namespace reap
