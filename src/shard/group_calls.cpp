#include "shard/group_calls.hpp"

#include <span>

#include "kernels/check.hpp"
#include "shard/transfer.hpp"

namespace reap {
namespace {

constexpr int kCallTag = 4;

}  // namespace

/// They say nothing but that they have come.
struct GroupCalls::Messages {
  std::byte said{};
  std::vector<std::byte> heard;  // [shards]
  Transfer transfer;
};

GroupCalls::GroupCalls(const Comm& group) : group_{group}, messages_{std::make_unique<Messages>()} {
  messages_->heard.resize(static_cast<std::size_t>(group.size()));
}

GroupCalls::~GroupCalls() {
  // Only an error leaves a call open. It may still be heard, so its memory has to stay; the job is about to end.
  if (messages_->transfer.busy()) static_cast<void>(messages_.release());
}

void GroupCalls::call() {
  Transfer& transfer = messages_->transfer;
  REAP_CHECK(!transfer.busy(), "call {} of the group is not over", calls_);
  for (int shard = 0; shard < group_.size(); ++shard) {
    if (shard == group_.rank()) continue;
    transfer.start_receive(&messages_->heard[static_cast<std::size_t>(shard)], 1, shard, kCallTag, group_.handle());
    transfer.start_send(&messages_->said, 1, shard, kCallTag, group_.handle());
  }
  ++calls_;
}

bool GroupCalls::heard() {
  messages_->transfer.poke();
  return !messages_->transfer.busy();
}

void GroupCalls::all_end() {
  std::int64_t most = calls_;
  group_.all_max(std::span(&most, 1));
  if (calls_ < most) call();
  messages_->transfer.wait(group_, "end the calls of the expert shards");
}

}  // namespace reap
