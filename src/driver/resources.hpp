#pragma once

#include <cstdint>

#include "driver/log.hpp"
#include "shard/comm.hpp"

namespace reap {

/// What this rank may use of its node.
struct Resources {
  int ranks_on_node = 1;
  int threads = 1;                // cores it may run on, divided by the ranks that share them
  std::int64_t memory_bytes = 0;  // four fifths of the node's memory (or the job's limit), divided by its ranks
};

/// How far the memory of this process has grown, as the system sees it (resident set), since this was made.
class MemoryGrowth {
 public:
  MemoryGrowth();
  std::int64_t peak_bytes() const;  // 0 where the system does not tell

 private:
  std::int64_t before_ = 0;
};

/// Collective. Warns when the launcher has bound ranks to fewer cores than their share of the node.
Resources all_find_resources(const Comm& world, Log& log);

}  // namespace reap
