#include "driver/concurrently.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/error.hpp"

namespace reap {

void for_each_concurrently(std::size_t count, std::size_t workers, const std::function<void(std::size_t index)>& work) {
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr error;
  const auto run = [&] {
    try {
      for (std::size_t index = next++; index < count; index = next++) work(index);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i < std::min(workers, count); ++i) {
      threads.emplace_back([&run, place = scope_path()] {
        const Scope scope(place);  // scopes are per thread
        run();
      });
    }
    run();
  }
  if (error) std::rethrow_exception(error);
}

std::function<void(std::int64_t)> serialised(const std::function<void(std::int64_t)>& report) {
  if (!report) return report;
  return [report, mutex = std::make_shared<std::mutex>()](std::int64_t amount) {
    const std::lock_guard lock(*mutex);
    report(amount);
  };
}

}  // namespace reap
