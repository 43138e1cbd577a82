#include "shard/device_edge.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "kernels/check.hpp"
#include "shard/room.hpp"

namespace reap {
namespace {

constexpr int kAnnounceTag = 5;
constexpr int kLetInTag = 6;
constexpr int kSenderOfTwo = 0;  // ranks in the devices' communicator of the edge
constexpr int kReceiverOfTwo = 1;

}  // namespace

/// Messages of one byte, which say nothing but that they have come. MPI may use their memory until they are over.
struct DeviceEdgeOut::Messages {
  std::byte announcement{}, letting_in{};
  Transfer announcing, hearing;
};

struct DeviceEdgeIn::Messages {
  std::byte announcement{}, letting_in{};
  Transfer letting, hearing;
};

DeviceEdgeOut::DeviceEdgeOut(const Comm& stages, std::unique_ptr<DeviceComm> devices, Backend& backend,
                             std::int64_t row_bytes)
    : stages_{stages},
      devices_{std::move(devices)},
      backend_{backend},
      row_bytes_{row_bytes},
      messages_{std::make_unique<Messages>()} {}

DeviceEdgeOut::~DeviceEdgeOut() {
  // Only an error leaves messages open; the job is about to end.
  if (messages_->announcing.busy() || messages_->hearing.busy()) static_cast<void>(messages_.release());
}

void DeviceEdgeOut::progress() {
  messages_->announcing.poke();
  if (let_in_ < sent_) {
    Transfer& hearing = messages_->hearing;
    if (!hearing.busy())
      hearing.start_receive(&messages_->letting_in, 1, stages_.rank() + 1, kLetInTag, stages_.handle());
    hearing.poke();
    if (!hearing.busy()) ++let_in_;
  }
  if (started_ > over_ && devices_->ready()) over_ = started_;
  if (started_ == over_ && started_ < let_in_) {
    if (bytes(started_) > 0) {
      const DeviceMessage block{berth(started_).data(), bytes(started_), kReceiverOfTwo};
      devices_->start(std::span(&block, 1), {});
    }
    ++started_;
  }
}

void DeviceEdgeOut::send(const float* x, std::int64_t rows) {
  REAP_CHECK(clear(), "the berth of block {} is taken", sent_);
  const auto slot = static_cast<std::size_t>(sent_ % kBerths);
  bytes_[slot] = rows * row_bytes_;
  make_room(berths_[slot], backend_.memory(), bytes_[slot]);
  backend_.copy(berths_[slot].data(), x, static_cast<std::size_t>(bytes_[slot]));
  messages_->announcing.start_send(&messages_->announcement, 1, stages_.rank() + 1, kAnnounceTag, stages_.handle());
  ++sent_;
  progress();
}

void DeviceEdgeOut::settle(std::int64_t let_in) {
  stages_.wait_until(
      [&] {
        progress();
        return over_ == let_in;
      },
      "block to the next stage");
}

void DeviceEdgeOut::drop() {
  messages_->hearing.cancel();
  messages_->announcing.wait(stages_, "announce blocks to the next stage");
  over_ = started_ = let_in_ = sent_;
}

DeviceEdgeIn::DeviceEdgeIn(const Comm& stages, std::unique_ptr<DeviceComm> devices, Backend& backend,
                           std::int64_t row_bytes, std::vector<std::int64_t> rows)
    : stages_{stages},
      devices_{std::move(devices)},
      backend_{backend},
      row_bytes_{row_bytes},
      rows_{std::move(rows)},
      messages_{std::make_unique<Messages>()} {
  const std::int64_t longest = rows_.empty() ? 0 : std::ranges::max(rows_);
  for (Buffer<std::byte>& berth : berths_) berth = {backend.memory(), longest * row_bytes_};
  expect_announcement();
}

DeviceEdgeIn::~DeviceEdgeIn() {
  // Only an error leaves messages open; the job is about to end.
  if (messages_->letting.busy() || messages_->hearing.busy()) static_cast<void>(messages_.release());
}

void DeviceEdgeIn::expect_announcement() {
  if (announced_ == static_cast<std::int64_t>(rows_.size())) return;
  messages_->hearing.start_receive(&messages_->announcement, 1, stages_.rank() - 1, kAnnounceTag, stages_.handle());
}

void DeviceEdgeIn::finish_transfer() {
  messages_->letting.poke();
  if (let_in_ > over_ && devices_->ready()) over_ = let_in_;
}

void DeviceEdgeIn::progress() {
  finish_transfer();
  if (announced_ < static_cast<std::int64_t>(rows_.size())) {
    messages_->hearing.poke();
    if (!messages_->hearing.busy()) {
      ++announced_;
      expect_announcement();
    }
  }
  if (let_in_ > over_ || let_in_ == announced_ || let_in_ == received_ + kBerths || messages_->letting.busy()) return;
  messages_->letting.start_send(&messages_->letting_in, 1, stages_.rank() - 1, kLetInTag, stages_.handle());
  if (bytes(let_in_) > 0) {
    const DeviceMessage block{berth(let_in_).data(), bytes(let_in_), kSenderOfTwo};
    devices_->start({}, std::span(&block, 1));
  }
  ++let_in_;
}

void DeviceEdgeIn::receive(float* x, std::int64_t rows) {
  REAP_CHECK(arrived() && rows_[static_cast<std::size_t>(received_)] == rows,
             "block {} of {} has not arrived, or is not of {} rows", received_, rows_.size(), rows);
  backend_.copy(x, berth(received_).data(), static_cast<std::size_t>(bytes(received_)));
  ++received_;
  progress();
}

void DeviceEdgeIn::settle() {
  stages_.wait_until(
      [&] {
        finish_transfer();
        return over_ == let_in_ && !messages_->letting.busy();
      },
      "block from the stage before");
}

void DeviceEdgeIn::drop(std::int64_t sent) {
  while (announced_ < sent) {
    messages_->hearing.wait(stages_, "announcements of the stage before");
    ++announced_;
    expect_announcement();
  }
  messages_->hearing.cancel();
  received_ = over_ = let_in_ = announced_;
}

}  // namespace reap
