#include "shard/layer_store.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

class AllLayers final : public LayerStore {
 public:
  AllLayers(std::vector<LayerWeights> layers, std::int64_t first) : layers_{std::move(layers)}, first_{first} {}

  bool ready(std::int64_t) override { return true; }
  const LayerWeights& at(std::int64_t layer) override { return layers_.at(static_cast<std::size_t>(layer - first_)); }
  void release(std::int64_t) override {}

 private:
  std::vector<LayerWeights> layers_;
  std::int64_t first_;
};

}  // namespace

std::unique_ptr<LayerStore> all_load_layers(const Comm& world, const Checkpoint& checkpoint, const Model& model,
                                            const Placement& placement, Backend& backend, const LayerRead& read) {
  std::vector<LayerWeights> layers;
  const int stages = placement.grid.pp;
  std::int64_t steps = 0;  // of the stage with the most layers
  for (int stage = 0; stage < stages; ++stage) steps = std::max(steps, layer_range(model.layers, stages, stage).size());
  for (std::int64_t step = 0; step < steps; ++step) {
    world.all_try([&] {
      const std::int64_t layer = placement.layers.begin + step;
      if (layer >= placement.layers.end) return;
      operations::note("read weights", layer);
      layers.push_back(load_layer(checkpoint, model, layer, placement.experts, backend,
                                  [&](std::int64_t) { world.idle(); }));  // a layer can be gigabytes
      if (read) read(layers.back().bytes());
    });
  }
  return std::make_unique<AllLayers>(std::move(layers), placement.layers.begin);
}

}  // namespace reap
