#include "shard/link_mpi.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/check.hpp"
#include "shard/group_calls.hpp"
#include "shard/host_lanes.hpp"
#include "shard/room.hpp"

namespace reap {
namespace {

constexpr int kBlockTag = 1;
constexpr int kCountTag = 2;
constexpr int kExchangeTag = 8;  // and those after it, one a lane

/// Where one block waits in host memory while it travels.
struct Berth {
  Buffer<std::byte> bytes;
  Transfer transfer;
};

class MpiLink final : public Link {
 public:
  MpiLink(const Comm& world, const Placement& placement, Backend& backend, std::int64_t hidden,
          std::vector<std::int64_t> coming, std::int64_t message_bytes)
      : backend_{backend},
        row_bytes_{hidden * static_cast<std::int64_t>(sizeof(float))},
        message_bytes_{message_bytes},
        stage_{placement.stage},
        coming_{std::move(coming)},
        column_{world.split(placement.column())},
        group_{world.split(placement.replica * placement.grid.pp + placement.stage)},
        berths_{std::make_unique<Berths>()} {
    const std::int64_t longest = coming_.empty() ? 0 : *std::max_element(coming_.begin(), coming_.end());
    for (Berth& berth : berths_->in) berth = {{host_memory, longest * row_bytes_}, Transfer(message_bytes_)};
    for (Berth& berth : berths_->out) berth.transfer = Transfer(message_bytes_);
    for (std::size_t block = 0; block < berths_->in.size(); ++block) expect(block);
  }

  ~MpiLink() override {
    // Only an error leaves transfers open. A message may still arrive, so their memory has to outlive this link; the
    // job is about to end.
    if (busy()) static_cast<void>(berths_.release());
  }

  bool arrived() override {
    Transfer& transfer = in(received_).transfer;
    transfer.poke();
    return !transfer.busy();
  }

  void receive(float* x, std::int64_t rows) override {
    REAP_CHECK(received_ < coming_.size() && coming_[received_] == rows, "block {} of {} has {} rows, not the expected",
               received_, coming_.size(), rows);
    REAP_CHECK(!in(received_).transfer.busy(), "block {} has not arrived", received_);
    backend_.upload(x, in(received_).bytes.data(), static_cast<std::size_t>(rows * row_bytes_));
    backend_.synchronize();  // the berth takes the next block at once
    ++received_;
    expect(received_ + berths_->in.size() - 1);
  }

  bool clear() override {
    Transfer& transfer = out(sent_).transfer;
    transfer.poke();
    return !transfer.busy();
  }

  void send(const float* x, std::int64_t rows) override {
    Berth& berth = out(sent_);
    REAP_CHECK(!berth.transfer.busy(), "the berth of block {} is taken", sent_);
    make_room(berth.bytes, host_memory, rows * row_bytes_);
    backend_.download(berth.bytes.data(), x, static_cast<std::size_t>(rows * row_bytes_));
    backend_.synchronize();
    berth.transfer.start_send(berth.bytes.data(), rows * row_bytes_, stage_ + 1, kBlockTag, column_.handle(),
                              MPI_Issend);  // so that it is known what the berth still holds
    ++sent_;
  }

  bool flushed() override {
    progress();
    return std::none_of(berths_->out.begin(), berths_->out.end(), [](const Berth& b) { return b.transfer.busy(); });
  }

  // A block is the receiver's from the moment its berth waits for it: that berth fills without the receiver's help.
  // What has been sent beyond is in the sender's berths, since a send ends only when a berth takes it.
  std::vector<Travelling> all_travelling() override {
    const auto [sent_to_us, taken_from_us] = all_counts();
    std::vector<Travelling> travelling;
    const std::size_t berths = berths_->in.size();
    for (std::size_t n = received_; n < std::min(sent_to_us, received_ + berths); ++n) {
      in(n).transfer.wait(column_, "block from the stage before");
      travelling.push_back({true, static_cast<std::int64_t>(n), in(n).bytes.data()});
    }
    for (std::size_t n = taken_from_us + berths; n < sent_; ++n) {
      REAP_CHECK(n + berths_->out.size() >= sent_, "block {} of {} sent is in no berth", n, sent_);
      travelling.push_back({false, static_cast<std::int64_t>(n), out(n).bytes.data()});
    }
    return travelling;
  }

  void all_drop() override {
    const Counts counts = all_counts();
    for (; received_ < counts.sent_to_us; ++received_) {
      in(received_).transfer.wait(column_, "block from the stage before");
      if (received_ + berths_->in.size() < counts.sent_to_us) expect(received_ + berths_->in.size());
    }
    for (Berth& berth : berths_->in) berth.transfer.cancel();  // nothing comes any more
    for (Berth& berth : berths_->out) berth.transfer.wait(column_, "block to the next stage");
    calls_.all_end();
  }

  void call_group() override { calls_.call(); }
  bool group_called() override { return calls_.heard(); }

  void all_exchange(std::span<const Lane> lanes) override {
    Transfer transfer(message_bytes_);
    start_exchange(transfer, group_, host_lanes_.take(lanes), kExchangeTag);
    transfer.wait(group_, "exchange between expert shards");
    host_lanes_.bring_back();
  }

  void progress() override {
    for (Berth& berth : berths_->in) berth.transfer.poke();
    for (Berth& berth : berths_->out) berth.transfer.poke();
  }

 private:
  /// All that MPI may still read or write when this link is gone.
  struct Berths {
    std::array<Berth, 2> in;   // one arriving while the other is taken
    std::array<Berth, 2> out;  // one leaving while the other is filled
  };

  struct Counts {
    std::size_t sent_to_us = 0;     // by the stage before
    std::size_t taken_from_us = 0;  // by the next one
  };

  /// How many blocks the neighbours have sent and taken.
  Counts all_counts() {
    Counts counts;
    Transfer transfer;
    constexpr std::int64_t kBytes = sizeof(std::size_t);
    const auto with = [&](int stage, const std::size_t& mine, std::size_t& theirs) {
      if (stage < 0 || stage >= column_.size()) return;
      transfer.start_receive(std::as_writable_bytes(std::span(&theirs, 1)).data(), kBytes, stage, kCountTag,
                             column_.handle());
      transfer.start_send(std::as_bytes(std::span(&mine, 1)).data(), kBytes, stage, kCountTag, column_.handle());
    };
    with(stage_ - 1, received_, counts.sent_to_us);
    with(stage_ + 1, sent_, counts.taken_from_us);
    transfer.wait(column_, "count blocks between stages");
    return counts;
  }

  Berth& in(std::size_t block) { return berths_->in[block % berths_->in.size()]; }
  Berth& out(std::size_t block) { return berths_->out[block % berths_->out.size()]; }

  void expect(std::size_t block) {
    if (block >= coming_.size()) return;
    Berth& berth = in(block);
    berth.transfer.start_receive(berth.bytes.data(), coming_[block] * row_bytes_, stage_ - 1, kBlockTag,
                                 column_.handle());
  }

  bool busy() const {
    const auto open = [](const Berth& berth) { return berth.transfer.busy(); };
    return std::any_of(berths_->in.begin(), berths_->in.end(), open) ||
           std::any_of(berths_->out.begin(), berths_->out.end(), open);
  }

  Backend& backend_;
  std::int64_t row_bytes_;
  std::int64_t message_bytes_;
  int stage_;
  std::vector<std::int64_t> coming_;  // rows of each block
  Comm column_;                       // rank = stage
  Comm group_;                        // rank = shard
  GroupCalls calls_{group_};
  HostLanes host_lanes_{backend_};
  std::unique_ptr<Berths> berths_;
  std::size_t received_ = 0;
  std::size_t sent_ = 0;
};

}  // namespace

std::unique_ptr<Link> make_mpi_link(const Comm& world, const Placement& placement, Backend& backend,
                                    std::int64_t hidden, std::vector<std::int64_t> coming, std::int64_t message_bytes) {
  return std::make_unique<MpiLink>(world, placement, backend, hidden, std::move(coming), message_bytes);
}

}  // namespace reap
