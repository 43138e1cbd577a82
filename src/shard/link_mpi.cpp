#include "shard/link_mpi.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/check.hpp"

namespace reap {
namespace {

// MPI 3 counts in int: longer transfers go as several messages, which keep their order.
constexpr std::int64_t kMessageBytes = std::int64_t{1} << 30;
constexpr int kBlockTag = 1;
constexpr int kExchangeTag = 2;

/// A transfer under way, as one or more messages.
class Transfer {
 public:
  void start_send(const std::byte* data, std::int64_t bytes, int peer, int tag, MPI_Comm comm) {
    for (std::int64_t at = 0; at < bytes; at += kMessageBytes) {
      const auto count = static_cast<int>(std::min(kMessageBytes, bytes - at));
      check_mpi(MPI_Isend(data + at, count, MPI_BYTE, peer, tag, comm, &requests_.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Isend");
    }
  }

  void start_receive(std::byte* data, std::int64_t bytes, int peer, int tag, MPI_Comm comm) {
    for (std::int64_t at = 0; at < bytes; at += kMessageBytes) {
      const auto count = static_cast<int>(std::min(kMessageBytes, bytes - at));
      check_mpi(MPI_Irecv(data + at, count, MPI_BYTE, peer, tag, comm, &requests_.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Irecv");
    }
  }

  void wait(const Comm& comm, const char* what) {
    if (requests_.empty()) return;
    comm.wait(requests_, what);
    requests_.clear();
  }

  void poke() {
    if (requests_.empty()) return;
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done != 0) requests_.clear();
  }

  bool busy() const { return !requests_.empty(); }

 private:
  std::vector<MPI_Request> requests_;
};

/// Where one block waits in host memory while it travels.
struct Berth {
  Buffer<std::byte> bytes;
  Transfer transfer;
};

class MpiLink final : public Link {
 public:
  MpiLink(const Comm& world, const Placement& placement, Backend& backend, std::int64_t hidden,
          std::vector<std::int64_t> blocks)
      : backend_{backend},
        row_bytes_{hidden * static_cast<std::int64_t>(sizeof(float))},
        stage_{placement.stage},
        coming_{std::move(blocks)},
        column_{world.split(placement.column())},
        group_{world.split(placement.replica * placement.grid.pp + placement.stage)},
        berths_{std::make_unique<Berths>()} {
    const std::int64_t longest = coming_.empty() ? 0 : *std::max_element(coming_.begin(), coming_.end());
    const bool first = stage_ == 0;
    const bool last = stage_ + 1 == placement.grid.pp;
    for (Berth& berth : berths_->in) berth.bytes = {host_memory, first ? 0 : longest * row_bytes_};
    for (Berth& berth : berths_->out) berth.bytes = {host_memory, last ? 0 : longest * row_bytes_};
    if (!first) {
      for (std::size_t block = 0; block < berths_->in.size(); ++block) expect(block);
    }
  }

  ~MpiLink() override {
    // Only an error leaves transfers open. A message may still arrive, so their memory has to outlive this link; the
    // job is about to end.
    if (busy()) static_cast<void>(berths_.release());
  }

  void receive(float* x, std::int64_t rows) override {
    REAP_CHECK(received_ < coming_.size() && coming_[received_] == rows, "block {} of {} has {} rows, not the expected",
               received_, coming_.size(), rows);
    Berth& berth = berths_->in[received_ % berths_->in.size()];
    berth.transfer.wait(column_, "wait for the stage before");
    backend_.upload(x, berth.bytes.data(), static_cast<std::size_t>(rows * row_bytes_));
    backend_.synchronize();  // the berth takes the next block at once
    expect(received_ + berths_->in.size());
    ++received_;
  }

  void send(const float* x, std::int64_t rows) override {
    Berth& berth = berths_->out[sent_ % berths_->out.size()];
    berth.transfer.wait(column_, "wait for the stage behind");
    backend_.download(berth.bytes.data(), x, static_cast<std::size_t>(rows * row_bytes_));
    backend_.synchronize();
    berth.transfer.start_send(berth.bytes.data(), rows * row_bytes_, stage_ + 1, kBlockTag, column_.handle());
    ++sent_;
  }

  void flush() override {
    for (Berth& berth : berths_->out) berth.transfer.wait(column_, "wait for the stage behind");
  }

  void all_exchange(const std::byte* send, std::span<const std::int64_t> send_start, std::byte* receive,
                    std::span<const std::int64_t> receive_start) override {
    Transfer transfer;
    const auto others = [&](auto&& start) {
      for (int i = 1; i < group_.size(); ++i) start((group_.rank() + i) % group_.size());
    };
    others([&](int shard) {
      const auto s = static_cast<std::size_t>(shard);
      transfer.start_receive(receive + receive_start[s], receive_start[s + 1] - receive_start[s], shard, kExchangeTag,
                             group_.handle());
    });
    others([&](int shard) {
      const auto s = static_cast<std::size_t>(shard);
      transfer.start_send(send + send_start[s], send_start[s + 1] - send_start[s], shard, kExchangeTag,
                          group_.handle());
    });
    transfer.wait(group_, "wait for the other expert shards");
  }

  void progress() override {
    for (Berth& berth : berths_->in) berth.transfer.poke();
    for (Berth& berth : berths_->out) berth.transfer.poke();
  }

 private:
  struct Berths {
    std::array<Berth, 2> in;   // one arriving while the other is taken
    std::array<Berth, 2> out;  // one leaving while the other is filled
  };

  void expect(std::size_t block) {
    if (block >= coming_.size()) return;
    Berth& berth = berths_->in[block % berths_->in.size()];
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
  int stage_;
  std::vector<std::int64_t> coming_;  // rows of each block
  Comm column_;                       // rank = stage
  Comm group_;                        // rank = shard
  std::unique_ptr<Berths> berths_;
  std::size_t received_ = 0;
  std::size_t sent_ = 0;
};

}  // namespace

std::unique_ptr<Link> make_mpi_link(const Comm& world, const Placement& placement, Backend& backend,
                                    std::int64_t hidden, std::vector<std::int64_t> blocks) {
  return std::make_unique<MpiLink>(world, placement, backend, hidden, std::move(blocks));
}

}  // namespace reap
