#include "driver/concurrently.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/error.hpp"

namespace reap {
namespace {

constexpr std::chrono::milliseconds kIdleInterval{50};

}  // namespace

void for_each_concurrently(std::size_t count, std::size_t workers, const std::function<void(std::size_t index)>& work,
                           const std::function<void()>& idle) {
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::condition_variable one_ended;
  std::exception_ptr error;
  std::size_t at_work = std::min(workers, count);
  const auto keep_first = [&](std::exception_ptr thrown) {
    next = count;
    const std::lock_guard lock(mutex);
    if (!error) error = std::move(thrown);
  };
  const auto run = [&, place = scope_path()] {
    const Scope scope(place);  // scopes are per thread
    try {
      for (std::size_t index = next++; index < count; index = next++) work(index);
    } catch (...) {
      keep_first(std::current_exception());
    }
    const std::lock_guard lock(mutex);
    --at_work;
    one_ended.notify_one();
  };
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = at_work; i > 0; --i) threads.emplace_back(run);
    std::unique_lock lock(mutex);
    while (!one_ended.wait_for(lock, kIdleInterval, [&] { return at_work == 0; })) {
      lock.unlock();
      try {
        if (idle) idle();
      } catch (...) {
        keep_first(std::current_exception());
      }
      lock.lock();
    }
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
