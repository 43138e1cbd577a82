#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/check.hpp"
#include "shard/layer_store.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

/// The reader's thread adds layers at the back, the pass takes them off the front.
class LayerStream final : public LayerStore {
 public:
  LayerStream(const Checkpoint& checkpoint, const Model& model, const Range& experts, std::vector<std::int64_t> order,
              std::int64_t window, std::unique_ptr<Backend> backend)
      : checkpoint_{checkpoint},
        model_{model},
        experts_{experts},
        order_{std::move(order)},
        window_{window},
        backend_{std::move(backend)},
        thread_{[this, place = scope_path()](const std::stop_token& stop) {
          const Scope scope(place);  // scopes are per thread
          read_all(stop);
        }} {}

  bool ready(std::int64_t layer) override {
    const std::lock_guard lock(mutex_);
    if (!layers_.empty()) {
      REAP_CHECK(layers_.front().layer == layer, "layer {} is next, not {}", layers_.front().layer, layer);
      return true;
    }
    if (error_) std::rethrow_exception(error_);
    return false;
  }

  const LayerWeights& at(std::int64_t layer) override {
    REAP_CHECK(ready(layer), "layer {} is not there", layer);
    const std::lock_guard lock(mutex_);
    return layers_.front().weights;
  }

  void release(std::int64_t layer) override {
    Entry done;
    {
      const std::lock_guard lock(mutex_);
      REAP_CHECK(!layers_.empty() && layers_.front().layer == layer, "layer {} is not at hand", layer);
      done = std::move(layers_.front());
      layers_.pop_front();
    }
    const std::int64_t bytes = done.bytes;
    done.weights = {};  // before the reader takes their place
    {
      const std::lock_guard lock(mutex_);
      held_ -= bytes;
    }
    changed_.notify_all();
  }

 private:
  struct Entry {
    std::int64_t layer = 0;
    std::int64_t bytes = 0;
    LayerWeights weights;
  };
  struct Stopped {};

  void read_all(const std::stop_token& stop) {
    std::int64_t surplus = 0;  // what a layer takes beyond what is thought before it is read
    try {
      for (const std::int64_t layer : order_) {
        Entry entry{layer, 0, {}};
        take(stop, entry, surplus);
        entry.weights = load_layer(checkpoint_, model_, layer, experts_, *backend_,
                                   [&](std::int64_t bytes) { take(stop, entry, bytes); });
        const std::lock_guard lock(mutex_);
        const std::int64_t bytes = entry.weights.bytes();
        surplus = std::max<std::int64_t>(0, bytes - (entry.bytes - surplus));
        held_ += bytes - std::exchange(entry.bytes, bytes);
        layers_.push_back(std::move(entry));
      }
    } catch (const Stopped&) {
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
  }

  /// Waits until the window has room for `bytes` more of `entry`. When the pass has released all layers before, it
  /// waits for this one, and waiting for room would be for ever.
  void take(const std::stop_token& stop, Entry& entry, std::int64_t bytes) {
    operations::moved();
    std::unique_lock lock(mutex_);
    const bool room = changed_.wait(
        lock, stop, [&] { return held_ + bytes <= window_ || (layers_.empty() && held_ == entry.bytes); });
    if (!room) throw Stopped{};
    held_ += bytes;
    entry.bytes += bytes;
  }

  const Checkpoint& checkpoint_;
  const Model& model_;
  Range experts_;
  std::vector<std::int64_t> order_;
  std::int64_t window_;
  std::unique_ptr<Backend> backend_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Entry> layers_;  // whole ones; the front one may be in use
  std::int64_t held_ = 0;     // bytes of those and of the one that is being read
  std::exception_ptr error_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace

std::unique_ptr<LayerStore> stream_layers(const Checkpoint& checkpoint, const Model& model, const Range& experts,
                                          std::vector<std::int64_t> order, std::int64_t window,
                                          std::unique_ptr<Backend> backend) {
  return std::make_unique<LayerStream>(checkpoint, model, experts, std::move(order), window, std::move(backend));
}

}  // namespace reap
