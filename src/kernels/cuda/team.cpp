#include "kernels/cuda/team.hpp"

#include <utility>

namespace reap::cuda {

Team::Team(int threads) {
  for (int thread = 0; thread < threads; ++thread) {
    threads_.emplace_back([this, thread](const std::stop_token& stop) { serve(stop, thread); });
  }
}

void Team::run(std::int64_t items, const std::function<void(int thread, std::int64_t item)>& work) {
  std::unique_lock lock(mutex_);
  work_ = &work;
  next_ = 0;
  items_ = items;
  wake_.notify_all();
  done_.wait(lock, [&] { return next_ == items_ && working_ == 0; });
  if (const std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
}

void Team::serve(const std::stop_token& stop, int thread) {
  std::unique_lock lock(mutex_);
  while (wake_.wait(lock, stop, [&] { return next_ < items_; })) {
    const std::int64_t item = next_++;
    ++working_;
    lock.unlock();
    std::exception_ptr error;
    try {
      (*work_)(thread, item);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    --working_;
    if (error) {
      if (!error_) error_ = error;
      next_ = items_;
    }
    if (next_ == items_ && working_ == 0) done_.notify_one();
  }
}

}  // namespace reap::cuda
