#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/link_device.hpp"
#include "shard/transfer.hpp"

namespace reap {

// Blocks between two stages, from device to device. A transfer keeps a part of both devices busy until both have
// started it, so it is agreed on first: the sender announces a block that is ready to go, the receiver lets it in when
// it has a place for it, and then both start. A block is the sender's until it is let in.

/// The end that sends.
class DeviceEdgeOut {
 public:
  /// @param stages  the communicator of a column; the next rank receives
  DeviceEdgeOut(const Comm& stages, std::unique_ptr<DeviceComm> devices, Backend& backend, std::int64_t row_bytes);
  ~DeviceEdgeOut();

  void progress();
  bool clear() const { return sent_ < over_ + kBerths; }
  bool flushed() const { return over_ == sent_; }
  void send(const float* x, std::int64_t rows);

  std::int64_t sent() const { return sent_; }
  /// While no stage sends or receives: brings those that the receiver has let in, the first `let_in`, to their end.
  void settle(std::int64_t let_in);
  /// Once settled: the blocks that are left are lost.
  void drop();
  /// At the end: gives up a transfer that is under way.
  void disconnect() { devices_.reset(); }
  /// Once settled: blocks [over, sent) are still here.
  std::int64_t over() const { return over_; }
  const Buffer<std::byte>& berth(std::int64_t block) const {
    return berths_[static_cast<std::size_t>(block % kBerths)];
  }
  std::int64_t bytes(std::int64_t block) const { return bytes_[static_cast<std::size_t>(block % kBerths)]; }

 private:
  static constexpr std::int64_t kBerths = 2;  // one leaving while the other is filled
  struct Messages;

  const Comm& stages_;
  std::unique_ptr<DeviceComm> devices_;
  Backend& backend_;
  std::int64_t row_bytes_;
  std::array<Buffer<std::byte>, kBerths> berths_;
  std::array<std::int64_t, kBerths> bytes_{};
  std::unique_ptr<Messages> messages_;
  // Blocks ready to go >= let in by the receiver >= started >= over.
  std::int64_t sent_ = 0, let_in_ = 0, started_ = 0, over_ = 0;
};

/// The end that receives.
class DeviceEdgeIn {
 public:
  /// @param rows  of the blocks that will come, in order
  DeviceEdgeIn(const Comm& stages, std::unique_ptr<DeviceComm> devices, Backend& backend, std::int64_t row_bytes,
               std::vector<std::int64_t> rows);
  ~DeviceEdgeIn();

  void progress();
  bool arrived() const { return over_ > received_; }
  void receive(float* x, std::int64_t rows);

  std::int64_t let_in() const { return let_in_; }
  /// While no stage sends or receives: waits for those that it has let in.
  void settle();
  /// Once settled: nothing more comes, `sent` have been announced.
  void drop(std::int64_t sent);
  /// At the end: gives up a transfer that is under way.
  void disconnect() { devices_.reset(); }
  /// Once settled: blocks [received, let_in) are here.
  std::int64_t received() const { return received_; }
  const Buffer<std::byte>& berth(std::int64_t block) const {
    return berths_[static_cast<std::size_t>(block % kBerths)];
  }
  std::int64_t bytes(std::int64_t block) const { return rows_[static_cast<std::size_t>(block)] * row_bytes_; }

 private:
  static constexpr std::int64_t kBerths = 2;  // one arriving while the other is taken
  struct Messages;
  void expect_announcement();
  void finish_transfer();

  const Comm& stages_;
  std::unique_ptr<DeviceComm> devices_;
  Backend& backend_;
  std::int64_t row_bytes_;
  std::vector<std::int64_t> rows_;
  std::array<Buffer<std::byte>, kBerths> berths_;
  std::unique_ptr<Messages> messages_;
  // Blocks announced >= let in >= over >= received.
  std::int64_t announced_ = 0, let_in_ = 0, over_ = 0, received_ = 0;
};

}  // namespace reap
