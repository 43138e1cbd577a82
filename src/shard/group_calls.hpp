#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "shard/comm.hpp"

namespace reap {

/// How the expert shards of a group tell each other that they can begin their next operation.
class GroupCalls {
 public:
  /// @param group  outlives this
  explicit GroupCalls(const Comm& group);
  ~GroupCalls();
  GroupCalls(const GroupCalls&) = delete;
  GroupCalls& operator=(const GroupCalls&) = delete;

  /// Calls once. The call before has been heard from all.
  void call();
  /// Whether all others have called as often as this rank.
  bool heard();
  /// While none calls any more: the shards have called equally often, but for the next operation, for which some have
  /// and some have not; those do. Collective.
  void all_end();

 private:
  struct Messages;
  const Comm& group_;
  std::unique_ptr<Messages> messages_;
  std::int64_t calls_ = 0;
};

}  // namespace reap
