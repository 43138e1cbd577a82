#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/layer.hpp"
#include "shard/model.hpp"
#include "shard/placement.hpp"

namespace reap {

/// The weights of a rank's layers, in the order in which a pass needs them.
class LayerStore {
 public:
  virtual ~LayerStore() = default;
  /// Whether the weights of `layer`, the next one needed, are there. @throws what reading them threw
  virtual bool ready(std::int64_t layer) = 0;
  /// They are: until release().
  virtual const LayerWeights& at(std::int64_t layer) = 0;
  virtual void release(std::int64_t layer) = 0;
};

/// Told of every layer that was read: its bytes.
using LayerRead = std::function<void(std::int64_t bytes)>;

/// All layers of the rank at once. The ranks read layer after layer in step, so that an error ends the job at once.
/// Collective. @throws SharedError
std::unique_ptr<LayerStore> all_load_layers(const Comm& world, const Checkpoint& checkpoint, const Model& model,
                                            const Placement& placement, Backend& backend, const LayerRead& read);

/// One layer at a time: a thread of its own reads the layers of `order`, one after the other, as far ahead as `window`
/// bytes of weights allow. A single layer may be larger than that.
/// @param order    layers as they are needed, again and again
/// @param backend  for that thread alone; it makes the same weights as the one that computes
std::unique_ptr<LayerStore> stream_layers(const Checkpoint& checkpoint, const Model& model, const Range& experts,
                                          std::vector<std::int64_t> order, std::int64_t window,
                                          std::unique_ptr<Backend> backend);

}  // namespace reap
