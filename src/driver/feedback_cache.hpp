#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/gptq.hpp"
#include "shard/imatrix.hpp"

namespace reap {

/// The feedback of the inputs that were asked for last: many weights share one, and follow one another in a file.
/// Several threads may ask.
class FeedbackCache {
 public:
  /// @param make  called when it is not there; threads that ask meanwhile wait
  std::shared_ptr<const Feedback> get(InputKind kind, std::int64_t layer, const std::function<Feedback()>& make);

 private:
  struct Entry {
    InputKind kind;
    std::int64_t layer;
    std::shared_ptr<const Feedback> feedback;
  };
  std::mutex mutex_;
  std::vector<Entry> entries_;  // the one asked for last at the end
};

}  // namespace reap
