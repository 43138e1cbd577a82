#include "driver/conveyor.hpp"

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/error.hpp"

namespace reap {
namespace {

/// How far each stage has come. Stage 0 is the supply.
class Progress {
 public:
  Progress(std::size_t slots, std::size_t stages) : slots_{slots}, done_(stages, 0) {}

  /// Waits until item `item` may enter `stage`; false when it never will.
  bool enter(std::size_t stage, std::uint64_t item) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped() || item >= end_ || ready(stage, item); });
    return !stopped() && item < end_;
  }

  void leave(std::size_t stage, std::uint64_t item) {
    const std::lock_guard lock(mutex_);
    done_[stage] = item + 1;
    changed_.notify_all();
  }

  /// There are `items` items and no more.
  void end(std::uint64_t items) {
    const std::lock_guard lock(mutex_);
    end_ = items;
    changed_.notify_all();
  }

  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    changed_.notify_all();
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  bool stopped() const { return error_ != nullptr; }
  bool ready(std::size_t stage, std::uint64_t item) const {
    return stage == 0 ? item < done_.back() + slots_ : item < done_[stage - 1];
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t slots_;
  std::vector<std::uint64_t> done_;  // items each stage is done with
  std::uint64_t end_ = std::numeric_limits<std::uint64_t>::max();
  std::exception_ptr error_;
};

}  // namespace

void run_conveyor(std::size_t slots, const std::function<bool(std::size_t slot)>& supply,
                  std::span<const std::function<void(std::size_t slot)>> stages) {
  REAP_CHECK(slots > 0 && !stages.empty(), "{} slots, {} stages", slots, stages.size());
  Progress progress(slots, stages.size() + 1);
  const auto run = [&](std::size_t stage) {
    try {
      for (std::uint64_t item = 0; progress.enter(stage, item); ++item) {
        const std::size_t slot = item % slots;
        if (stage > 0) {
          stages[stage - 1](slot);
        } else if (!supply(slot)) {
          progress.end(item);
          return;
        }
        progress.leave(stage, item);
      }
    } catch (...) {
      progress.fail(std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (std::size_t stage = 0; stage < stages.size(); ++stage) {
        threads.emplace_back([&run, stage, place = scope_path()] {
          const Scope scope(place);  // scopes are per thread
          run(stage);
        });
      }
      run(stages.size());
    } catch (...) {  // a thread that could not be started
      progress.fail(std::current_exception());
    }
  }
  progress.rethrow();
}

}  // namespace reap
