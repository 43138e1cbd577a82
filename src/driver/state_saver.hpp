#pragma once

#include <chrono>
#include <vector>

#include "driver/commands.hpp"
#include "driver/state.hpp"
#include "shard/cut.hpp"

namespace reap {

/// Saves a pass while it runs: every --checkpoint-minutes, and before it stops on request.
class StateSaver {
 public:
  StateSaver(Job& job, StateFolder folder);

  /// Where the pass goes on; a beginning when nothing is saved. Collective. @throws SharedError
  StartingPoint all_load();
  Cut::Wishes wishes();
  /// Collective. @throws SharedError(io)
  void all_save(const Snapshot& snapshot, const std::vector<HeldBlock>& own);

 private:
  using Clock = std::chrono::steady_clock;
  Job& job_;
  StateFolder folder_;
  Clock::time_point saved_at_ = Clock::now();
  Clock::duration took_{};  // the last save
};

}  // namespace reap
