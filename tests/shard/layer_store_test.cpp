#include "shard/layer_store.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "golden.hpp"
#include "shard/families.hpp"

namespace reap {
namespace {

struct Fixture {
  Fixture() : checkpoint{test::data("m2-nano-fp8")}, model{describe_model(checkpoint)} {
    const auto backend = make_backend();
    layer_bytes = load_layer(checkpoint, model, 0, {0, model.router.experts}, *backend).bytes();
  }
  std::unique_ptr<Backend> make_backend() const { return make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic); }
  std::unique_ptr<LayerStore> stream(std::vector<std::int64_t> order, std::int64_t window) const {
    return stream_layers(checkpoint, model, {0, model.router.experts}, std::move(order), window, make_backend());
  }
  Checkpoint checkpoint;
  Model model;
  std::int64_t layer_bytes = 0;
};

const LayerWeights& wait_for(LayerStore& store, std::int64_t layer) {
  while (!store.ready(layer)) std::this_thread::yield();
  return store.at(layer);
}

TEST(LayerStream, GivesTheLayersInOrderAgainAndAgain) {
  const Fixture f;
  const std::vector<std::int64_t> order{0, 1, 2, 3, 0, 1, 2, 3, 2, 2};
  for (const std::int64_t window : {std::int64_t{0}, f.layer_bytes + 1000, 2 * f.layer_bytes, 100 * f.layer_bytes}) {
    const auto store = f.stream(order, window);
    for (const std::int64_t layer : order) {
      const LayerWeights& got = wait_for(*store, layer);
      const auto backend = f.make_backend();
      const LayerWeights expected = load_layer(f.checkpoint, f.model, layer, {0, f.model.router.experts}, *backend);
      EXPECT_EQ(got.bytes(), expected.bytes());
      for (std::int64_t i = 0; i < f.model.hidden; ++i) {
        ASSERT_EQ(got.input_norm.data()[i], expected.input_norm.data()[i]) << "layer " << layer;
      }
      store->release(layer);
    }
  }
}

TEST(LayerStream, TheNextLayerWaitsForRoom) {
  const Fixture f;
  bool waited = false;
  for (int round = 0; round < 40 && !waited; ++round) {
    const auto store = f.stream({0, 1}, f.layer_bytes + 1000);
    wait_for(*store, 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // time enough to read many
    EXPECT_TRUE(store->ready(0));
    store->release(0);
    // It could not be read before. On a busy machine it may be read before we look: then once more.
    waited = !store->ready(1);
    wait_for(*store, 1);
  }
  EXPECT_TRUE(waited);
}

TEST(LayerStream, MayBeLeftInTheMiddle) {
  const Fixture f;
  for (int layers = 0; layers < 3; ++layers) {
    const auto store = f.stream({0, 1, 2, 3}, layers * f.layer_bytes);
    for (int layer = 0; layer < layers; ++layer) {
      wait_for(*store, layer);
      store->release(layer);
    }
  }
}

}  // namespace
}  // namespace reap
