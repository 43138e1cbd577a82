#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace reap {

/// The traffic of one rank with its neighbours in the grid: with the stages before and after its own, and with the
/// other expert shards of its stage and replica.
class Link {
 public:
  virtual ~Link() = default;

  /// Whether the next block from the previous stage is there. Later ones go on arriving meanwhile.
  virtual bool arrived() = 0;
  /// It is: puts its hidden states into x, [rows, hidden] of the backend.
  virtual void receive(float* x, std::int64_t rows) = 0;
  /// Whether a block can be handed on: at most one of those before is still on its way.
  virtual bool clear() = 0;
  /// It can: hands x, [rows, hidden] of the backend, to the next stage; x may be changed on return.
  virtual void send(const float* x, std::int64_t rows) = 0;
  /// Whether all that was sent has arrived.
  virtual bool flushed() = 0;

  /// A block between two stages, in host memory.
  struct Travelling {
    bool incoming = false;    // from the stage before, as against to the next one
    std::int64_t number = 0;  // of those that pass this way, in order
    const std::byte* x = nullptr;
  };
  /// While no stage sends or receives: the blocks on their way that this rank answers for; each of them is one rank's.
  /// They stay on their way. Collective over the stages of a column.
  virtual std::vector<Travelling> all_travelling() = 0;
  /// While no stage sends or receives: ends the traffic between stages; blocks on their way are lost, and calls of a
  /// group are no longer waited for. Collective over the ranks of the grid.
  virtual void all_drop() = 0;

  /// Tells the other shards of the group that this rank can begin its next operation.
  virtual void call_group() = 0;
  /// Whether all of them have told so too.
  virtual bool group_called() = 0;

  /// Items that go to each shard of the group and come from each, one array each way.
  struct Lane {
    enum class Place : std::uint8_t { host, backend };
    Place place;  // of both arrays
    const std::byte* send;
    std::byte* receive;
    std::int64_t item_bytes;
    std::span<const std::int64_t> send_start;     // [shards + 1] first item to each shard
    std::span<const std::int64_t> receive_start;  // [shards + 1] first item from each shard
  };
  /// Exchanges all lanes with every other shard of the group, which gives lanes of the same items. Nothing is sent to
  /// itself, and the room for it is left as it is. What came can be used on return.
  virtual void all_exchange(std::span<const Lane> lanes) = 0;

  /// Moves transfers on. They move only inside such calls, so it is called between the operations of a layer and while
  /// the rank waits, though not inside the collective calls above but all_exchange.
  virtual void progress() = 0;
};

/// The link of a rank that has no neighbours.
class NoLink final : public Link {
 public:
  bool arrived() override { return true; }
  void receive(float* x, std::int64_t rows) override;
  bool clear() override { return true; }
  void send(const float* x, std::int64_t rows) override;
  bool flushed() override { return true; }
  std::vector<Travelling> all_travelling() override { return {}; }
  void all_drop() override {}
  void call_group() override {}
  bool group_called() override { return true; }
  void all_exchange(std::span<const Lane>) override {}
  void progress() override {}
};

}  // namespace reap
