#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

namespace reap::cuda {

/// Threads that share out the items of one task after the other. Plain C++, so that a test without a GPU can run it.
class Team {
 public:
  explicit Team(int threads);

  /// Calls work(thread, item) for every item in [0, items), with threads counted from 0, and waits for all of them.
  /// @throws what the first of them threw; items that nobody had begun by then are left out
  void run(std::int64_t items, const std::function<void(int thread, std::int64_t item)>& work);

 private:
  void serve(const std::stop_token& stop, int thread);

  std::mutex mutex_;
  std::condition_variable_any wake_, done_;
  const std::function<void(int thread, std::int64_t item)>* work_ = nullptr;
  std::int64_t next_ = 0, items_ = 0;
  int working_ = 0;
  std::exception_ptr error_;
  std::vector<std::jthread> threads_;  // last: they use all of the above
};

}  // namespace reap::cuda
