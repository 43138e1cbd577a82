#include "shard/link_device.hpp"

#include <array>
#include <optional>
#include <span>
#include <utility>

#include "shard/device_edge.hpp"
#include "shard/group_calls.hpp"
#include "shard/host_lanes.hpp"

namespace reap {
namespace {

constexpr int kExchangeTag = 8;  // and those after it, one a lane

/// The device transfers of the edges between stage s and s + 1, for even s or for odd s: a communicator of two, or null
/// at the ends.
std::unique_ptr<DeviceComm> all_connect_pairs(const Comm& stages, bool odd, const ConnectDevices& connect) {
  const Comm pair = stages.split((stages.rank() + (odd ? 1 : 0)) / 2);
  return pair.size() == 2 ? connect(pair) : nullptr;
}

class DeviceLink final : public Link {
 public:
  DeviceLink(const Comm& world, const Placement& placement, Backend& backend, std::int64_t hidden,
             std::vector<std::int64_t> coming, const ConnectDevices& connect)
      : backend_{backend},
        column_{world.split(placement.column())},
        group_{world.split(placement.replica * placement.grid.pp + placement.stage)} {
    const std::int64_t row_bytes = hidden * static_cast<std::int64_t>(sizeof(float));
    std::array<std::unique_ptr<DeviceComm>, 2> pairs;
    for (const bool odd : {false, true}) pairs[odd ? 1 : 0] = all_connect_pairs(column_, odd, connect);
    const std::size_t next = placement.stage % 2 == 0 ? 0 : 1;
    if (placement.stage > 0) {
      in_.emplace(column_, std::move(pairs[1 - next]), backend, row_bytes, std::move(coming));
    }
    if (placement.stage + 1 < placement.grid.pp) out_.emplace(column_, std::move(pairs[next]), backend, row_bytes);
    if (group_.size() > 1) shards_ = connect(group_);
  }

  ~DeviceLink() override {
    // All of them before the memory of any: freeing it waits for the transfers of the whole device.
    shards_.reset();
    if (in_) in_->disconnect();
    if (out_) out_->disconnect();
  }

  bool arrived() override {
    in_->progress();
    return in_->arrived();
  }
  void receive(float* x, std::int64_t rows) override { in_->receive(x, rows); }

  bool clear() override {
    out_->progress();
    return out_->clear();
  }
  void send(const float* x, std::int64_t rows) override { out_->send(x, rows); }

  bool flushed() override {
    progress();
    return !out_ || out_->flushed();
  }

  std::vector<Travelling> all_travelling() override {
    standing_ = true;
    static_cast<void>(all_settle());
    std::vector<Travelling> travelling;
    held_.clear();
    const auto hold = [&](bool incoming, std::int64_t block, const Buffer<std::byte>& berth, std::int64_t bytes) {
      const Buffer<std::byte>& copy = held_.emplace_back(host_memory, bytes);
      backend_.download(copy.data(), berth.data(), static_cast<std::size_t>(bytes));
      travelling.push_back({incoming, block, copy.data()});
    };
    if (in_) {
      for (std::int64_t n = in_->received(); n < in_->let_in(); ++n) hold(true, n, in_->berth(n), in_->bytes(n));
    }
    if (out_) {
      for (std::int64_t n = out_->over(); n < out_->sent(); ++n) hold(false, n, out_->berth(n), out_->bytes(n));
    }
    backend_.synchronize();
    standing_ = false;
    return travelling;
  }

  void all_drop() override {
    standing_ = true;  // from now on
    const std::int64_t sent_to_us = all_settle();
    if (in_) in_->drop(sent_to_us);
    if (out_) out_->drop();
    calls_.all_end();
  }

  void call_group() override { calls_.call(); }
  bool group_called() override { return calls_.heard(); }

  void all_exchange(std::span<const Lane> lanes) override {
    std::vector<Lane> by_mpi;
    std::vector<DeviceMessage> sends, receives;
    for (const Lane& lane : lanes) {
      if (lane.place == Lane::Place::host) {
        by_mpi.push_back(lane);
      } else {
        add_messages(lane, sends, receives);
      }
    }
    Transfer transfer;
    start_exchange(transfer, group_, by_mpi, kExchangeTag);
    if (shards_ && !(sends.empty() && receives.empty())) {
      shards_->start(sends, receives);
      group_.wait_until([&] { return shards_->ready(); }, "exchange between expert shards");
    }
    transfer.wait(group_, "exchange between expert shards");
  }

  void progress() override {
    if (standing_) return;
    if (in_) in_->progress();
    if (out_) out_->progress();
  }

 private:
  void add_messages(const Lane& lane, std::vector<DeviceMessage>& sends, std::vector<DeviceMessage>& receives) const {
    const auto add = [&](std::vector<DeviceMessage>& to, const std::byte* array, std::span<const std::int64_t> start,
                         int shard) {
      const auto s = static_cast<std::size_t>(shard);
      const std::int64_t bytes = (start[s + 1] - start[s]) * lane.item_bytes;
      if (bytes > 0) to.push_back({const_cast<std::byte*>(array) + start[s] * lane.item_bytes, bytes, shard});
    };
    for (int i = 1; i < group_.size(); ++i) {
      const int shard = (group_.rank() + i) % group_.size();
      add(sends, lane.send, lane.send_start, shard);
      add(receives, lane.receive, lane.receive_start, shard);
    }
  }

  /// While no stage sends or receives: ends the transfers that are under way. @return blocks sent to this rank
  std::int64_t all_settle() {
    std::int64_t sent_to_us = 0, let_in_of_us = 0;
    Transfer counts;
    const auto with = [&](int stage, const std::int64_t& mine, std::int64_t& theirs) {
      counts.start_receive(std::as_writable_bytes(std::span(&theirs, 1)).data(), sizeof theirs, stage, kCountTag,
                           column_.handle());
      counts.start_send(std::as_bytes(std::span(&mine, 1)).data(), sizeof mine, stage, kCountTag, column_.handle());
    };
    const std::int64_t let_in = in_ ? in_->let_in() : 0, sent = out_ ? out_->sent() : 0;
    if (in_) with(column_.rank() - 1, let_in, sent_to_us);
    if (out_) with(column_.rank() + 1, sent, let_in_of_us);
    counts.wait(column_, "count blocks between stages");
    // The sender first: the next stage waits for its part of a transfer.
    if (out_) out_->settle(let_in_of_us);
    if (in_) in_->settle();
    return sent_to_us;
  }

  static constexpr int kCountTag = 2;

  Backend& backend_;
  Comm column_;  // rank = stage
  Comm group_;   // rank = shard
  GroupCalls calls_{group_};
  std::optional<DeviceEdgeIn> in_;
  std::optional<DeviceEdgeOut> out_;
  std::unique_ptr<DeviceComm> shards_;
  std::vector<Buffer<std::byte>> held_;  // blocks between stages at a cut
  bool standing_ = false;                // what waiting does besides must let nothing in
};

}  // namespace

std::unique_ptr<Link> make_device_link(const Comm& world, const Placement& placement, Backend& backend,
                                       std::int64_t hidden, std::vector<std::int64_t> coming,
                                       const ConnectDevices& connect) {
  return std::make_unique<DeviceLink>(world, placement, backend, hidden, std::move(coming), connect);
}

}  // namespace reap
