// Bytes that are counted, beside bytes that the code which allocates them takes.
#include "shard/footprint.hpp"

#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>

#include "kernels/cpu_footprint.hpp"
#include "kernels/fields.hpp"
#include "shard/block.hpp"
#include "shard/families.hpp"
#include "shard/head.hpp"
#include "shard/input_tally.hpp"
#include "shard/layer.hpp"
#include "shard/moment_tally.hpp"
#include "shard/output_tally.hpp"
#include "shard/tally.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kData = REAP_TEST_DATA;

Samples equal_samples(std::int64_t count, std::int64_t length) {
  Samples samples;
  for (std::int64_t i = 0; i <= count; ++i) samples.offsets.push_back(i * length);
  samples.domain.assign(static_cast<std::size_t>(count), 0);
  return samples;
}

TEST(Workload, FollowsFromTheSamples) {
  Samples samples = equal_samples(3, 10);
  samples.offsets.push_back(34);  // a fourth, of 4 tokens
  samples.domain.push_back(0);
  const Workload work = workload_of(samples, 20);
  ASSERT_EQ(work.blocks.size(), 2U);
  EXPECT_EQ(work.tokens(), 34);
  EXPECT_EQ(work.max_rows(), 20);
  EXPECT_EQ(work.longest_sample, 10);
  EXPECT_EQ(work.groups, 2);
  EXPECT_DOUBLE_EQ(work.mean_context, (3 * 55.0 + 10) / 34);  // 1 + 2 + ... + 10, and up to 4
  EXPECT_EQ(work.column_rows(1), 34);
  EXPECT_EQ(work.column_rows(2), 20);
  EXPECT_EQ(work.column_rows(3), 20);
}

constexpr double kAvx2Scales = 1.07;  // of large matrices every 64 codes have a scale, of small ones up to 1024

class Weights : public testing::TestWithParam<std::tuple<const char*, Compute>> {};

TEST_P(Weights, LayersAreCountedAsTheyAreHeld) {
  const auto& [name, compute] = GetParam();
  const Checkpoint checkpoint(kData / name);
  const Model model = describe_model(checkpoint);
  Workload work = workload_of(equal_samples(1, 8), 8);
  work.compute = compute;
  const auto backend = make_cpu_backend(compute, 1, CpuIsa::automatic);
  for (const int ep : {1, 3}) {
    const Range experts{0, (model.router.experts + ep - 1) / ep};
    const auto held = static_cast<double>(load_layer(checkpoint, model, 0, experts, *backend).bytes());
    const auto counted = static_cast<double>(layer_bytes(model, {1, ep, 1}, work));
    EXPECT_GE(counted, held);
    EXPECT_LE(counted, held * (settle_isa(CpuIsa::automatic) == CpuIsa::avx2 ? kAvx2Scales : 1));
  }
}
INSTANTIATE_TEST_SUITE_P(Models, Weights,
                         testing::Combine(testing::Values("m2-nano-fp8", "m2-mini-fp8", "m2-mini-bf16"),
                                          testing::Values(Compute::fp32, Compute::bf16)));

/// Bytes that this process has from malloc.
std::int64_t allocated() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<std::int64_t>(info.uordblks + info.hblkhd);
}

constexpr double kUnder = 1.02;  // more than counted: the allocator's own bytes
constexpr double kOver = 1.25;   // counted for the worst case: experts of any size, attention's scratch, which is gone

// A warm-up of one row makes what does not depend on the block: oneDNN's products and the tables of packing orders.
TEST(Footprint, ForwardCountsWhatABlockTakes) {
  if (allocated() == 0) GTEST_SKIP() << "this build's malloc does not tell what it holds";
  const Checkpoint checkpoint(kData / "m2-nano-fp8");
  const Model model = describe_model(checkpoint);
  const Placement placement = place(model, {1, 1, 1}, 0);
  for (const std::int64_t rows : {300, 2000}) {
    const Samples samples = equal_samples(1, rows);
    Workload work = workload_of(samples, rows);
    const auto backend = make_cpu_backend(work.compute, 1, CpuIsa::automatic);
    const LayerWeights weights = load_layer(checkpoint, model, 0, placement.experts, *backend);
    NoLink link;
    const auto run = [&](BlockForward& forward, BlockRows& block, const Buffer<float>& x) {
      for (std::int64_t i = 0; i < x.size(); ++i)
        x.data()[i] = static_cast<float>((i * 37 + i / 128 * 11) % 101) / 50 - 1;
      forward.all_layer(weights, weights.gate_bias.data(), block, x.data());
    };
    {
      const Samples one = equal_samples(1, 1);
      BlockForward forward(model, placement, *backend, link, 1);
      BlockRows block(*backend, 1);
      block.set(one, make_blocks(one.offsets, 1)[0]);
      run(forward, block, Buffer<float>(host_memory, model.hidden));
    }
    const CpuFootprint own{work.compute, work.isa, work.threads};
    const std::int64_t threads = own.working({model.hidden, model.expert.inner, model.attention, DType::f8_e4m3,
                                              model.router.experts, 0, 0});  // of no slots: scratch, there already
    const std::int64_t before = allocated();
    BlockForward forward(model, placement, *backend, link, rows);
    BlockRows block(*backend, rows);
    block.set(samples, work.blocks[0]);
    const Buffer<float> x(host_memory, rows * model.hidden);
    run(forward, block, x);
    const auto taken = static_cast<double>(allocated() - before);
    const auto counted = static_cast<double>(footprint_of(model, placement.grid, work, {}).forward - threads);
    EXPECT_LE(taken, counted * kUnder) << rows << " rows";
    EXPECT_GE(taken * kOver, counted) << rows << " rows";
  }
}

TEST(Footprint, SumsCountTheTables) {
  const Checkpoint checkpoint(kData / "m2-mini-bf16");
  const Model model = describe_model(checkpoint);
  Samples samples = equal_samples(4, 8);
  samples.domains = 50;
  const Workload work = workload_of(samples, 8);
  const auto backend = make_cpu_backend(work.compute, 1, CpuIsa::automatic);
  if (allocated() == 0) GTEST_SKIP() << "this build's malloc does not tell what it holds";
  const std::int64_t before = allocated();
  const Tally own(model, {0, 2}, work.groups, *backend);
  const Saliency all(work.groups, model.layers, model.router.experts);
  const std::int64_t counted = footprint_of(model, {1, 1, 1}, work, {}).sums;
  EXPECT_NEAR(static_cast<double>(allocated() - before), static_cast<double>(counted),
              4000);  // alignment, and a number per group
  EXPECT_EQ(counted, 2 * 2 * 100 * 6 * (8 * kSumsPerExpert + 4));
}

TEST(Footprint, HeadCountsWhatAnEvaluationHolds) {
  constexpr double kSmallParts = 0.02;  // targets, results and masks
  const Checkpoint checkpoint(kData / "m2-nano-fp8");
  const Model model = describe_model(checkpoint);
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    Workload work = workload_of(equal_samples(40, 10), 400);
    work.compute = compute;
    work.evaluated = 3;
    const auto backend = make_cpu_backend(compute, 1, CpuIsa::automatic);
    const Head head = load_head(checkpoint, model, *backend);
    const std::int64_t tile = HeadForward::kTileRows;
    const std::int64_t act = compute == Compute::fp32 ? 4 : 2;
    const std::int64_t held = head.projection->bytes() + 2 * tile * (4 * model.vocab + act * model.hidden) +
                              4 * tile * model.hidden + 3 * 4 * 400 * model.hidden;
    const Footprint need = footprint_of(model, {1, 1, 1}, work, {});
    EXPECT_NEAR(static_cast<double>(need.head), static_cast<double>(held), kSmallParts * static_cast<double>(held));
    EXPECT_EQ(need.sums, 0);
    EXPECT_EQ(work.column_rows(1), 3 * 400) << "a block goes through the model in every variant";

    work.evaluated = 1;
    const std::int64_t alone = footprint_of(model, {1, 1, 1}, work, {}).head;
    work.compared = true;
    const std::int64_t second = head.projection->bytes() + tile * (4 * model.vocab + act * model.hidden);
    const std::int64_t states = 2 * 4 * 400 * model.hidden;  // of a block, and what is kept of all
    EXPECT_EQ(footprint_of(model, {1, 1, 1}, work, {}).head - alone, second + states);
  }
}

TEST(Footprint, SumsCountWhatIsCollected) {
  const Checkpoint checkpoint(kData / "m2-mini-bf16");
  const Model model = describe_model(checkpoint);
  Workload work = workload_of(equal_samples(4, 8), 8);
  const std::int64_t fields = footprint_of(model, {1, 1, 1}, work, {}).sums;
  const auto backend = make_cpu_backend(work.compute, 1, CpuIsa::automatic);
  if (allocated() == 0) GTEST_SKIP() << "this build's malloc does not tell what it holds";
  for (const Collected& collected : {Collected{.gram = true}, Collected{.outputs = true}}) {
    work.collected = collected;
    const std::int64_t before = allocated();
    const OutputTally own(model, {0, model.layers}, collected, *backend);
    const std::int64_t held = allocated() - before;
    // Those of all layers are there three times more on rank 0, and the dot products of a block during a call.
    const std::int64_t dots = collected.gram ? 8 * 8 * pair_count(model.router.top_k) : 0;
    EXPECT_NEAR(static_cast<double>(footprint_of(model, {1, 1, 1}, work, {}).sums - fields - dots),
                static_cast<double>(4 * held), 3000);
  }
}

TEST(Footprint, SumsCountSquaresOfInputs) {
  const Checkpoint checkpoint(kData / "m2-mini-bf16");
  const Model model = describe_model(checkpoint);
  Workload work = workload_of(equal_samples(4, 8), 8);
  const auto sums = [&](const Grid& grid) { return footprint_of(model, grid, work, {}).sums; };
  const std::int64_t fields = sums({1, 1, 1});
  const std::int64_t fields_pp = sums({2, 1, 1});
  work.collected.imatrix = true;
  if (allocated() == 0) GTEST_SKIP() << "this build's malloc does not tell what it holds";
  const auto backend = make_cpu_backend(work.compute, 1, CpuIsa::automatic);
  const auto held = [&](const Grid& grid) {
    const std::int64_t before = allocated();
    const InputTally own(model, place(model, grid, 0), true, *backend);
    return allocated() - before;
  };
  // Those of all layers and experts are there three times more on rank 0.
  constexpr double kSmallParts = 2000;
  const std::int64_t all = held({1, 1, 1});
  EXPECT_NEAR(static_cast<double>(collected_bytes(model, work)), static_cast<double>(all), kSmallParts);
  EXPECT_NEAR(static_cast<double>(sums({1, 1, 1}) - fields), static_cast<double>(4 * all), kSmallParts);
  EXPECT_NEAR(static_cast<double>(sums({2, 1, 1}) - fields_pp), static_cast<double>(3 * all + held({2, 1, 1})),
              kSmallParts);
  EXPECT_NEAR(static_cast<double>(sums({1, 3, 1}) - fields), static_cast<double>(3 * all + held({1, 3, 1})),
              kSmallParts);
}

TEST(Footprint, CountsMomentsAsTheyAreHeld) {
  const Model model = describe_model(Checkpoint(kData / "m2-nano-fp8"));
  Workload work = workload_of(equal_samples(100, 10), 50);
  const auto sums = [&](const Grid& grid) { return footprint_of(model, grid, work, {}).sums; };
  const std::int64_t without = sums({1, 1, 1}), without_pp = sums({2, 1, 1});
  work.collected.moments = true;
  if (allocated() == 0) GTEST_SKIP() << "this build's malloc does not tell what it holds";
  const auto backend = make_cpu_backend(work.compute, 1, CpuIsa::automatic);
  const auto held = [&](const Range& layers) {
    const std::int64_t before = allocated();
    const MomentTally own(model, layers, true, *backend);
    return allocated() - before;
  };
  constexpr double kSmallParts = 2000;
  const std::int64_t all = held({0, model.layers}), half = held({0, model.layers / 2});
  const std::int64_t working = sums({1, 1, 1}) - without - 4 * collected_bytes(model, work);
  EXPECT_GT(working, 0);
  EXPECT_NEAR(static_cast<double>(collected_bytes(model, work)), static_cast<double>(all), kSmallParts);
  EXPECT_NEAR(static_cast<double>(sums({2, 1, 1}) - without_pp - working), static_cast<double>(3 * all + half),
              kSmallParts);
}

TEST(Footprint, PartsFollowGridAndHolding) {
  const Model model = describe_model(Checkpoint(kData / "m2-nano-fp8"));  // 4 layers
  const Workload work = workload_of(equal_samples(100, 10), 50);
  const auto need = [&](const Grid& grid, const Holding& holding = {}) {
    return footprint_of(model, grid, work, holding);
  };
  const std::int64_t layer = layer_bytes(model, {1, 1, 1}, work);
  const std::int64_t embedding = 2 * model.vocab * model.hidden;
  EXPECT_EQ(need({1, 1, 1}).weights, 4 * layer + embedding);
  EXPECT_EQ(need({2, 1, 1}).weights, 2 * layer + embedding);
  EXPECT_EQ(need({3, 1, 1}).weights, std::max(2 * layer, layer + embedding));
  EXPECT_EQ(need({1, 1, 8}).total(), need({1, 1, 1}).total()) << "replicas change nothing";
  EXPECT_EQ(need({1, 1, 1}).links, 0);
  EXPECT_EQ(need({2, 1, 1}).links, 2 * 50 * 4 * model.hidden) << "two blocks, one way";
  EXPECT_EQ(need({3, 1, 1}).links, 4 * 50 * 4 * model.hidden);
  EXPECT_GT(need({1, 2, 1}).links, 0);

  const Footprint streamed = need({1, 1, 1}, {.streamed = true, .weight_window = 2 * layer, .wave_rows = 300});
  EXPECT_EQ(streamed.weights, 2 * layer);
  EXPECT_EQ(streamed.hidden, 300 * 4 * model.hidden);
  EXPECT_EQ(need({1, 1, 1}).hidden, 0);
  Workload spilled = work;
  spilled.scratch = true;
  EXPECT_EQ(footprint_of(model, {1, 1, 1}, spilled, {.streamed = true, .wave_rows = 300}).hidden,
            50 * 4 * model.hidden);
}

// The largest model there is: 62 layers, FP8. Its first stage reads 1.2 GB of embedding before its layers.
TEST(Footprint, ReadingCountsTheEmbeddingOnce) {
  Model model = describe_model(Checkpoint(kData / "m2-nano-fp8"));
  model.layers = 1;
  model.vocab = 1 << 20;
  const Workload work = workload_of(equal_samples(1, 8), 8);
  const Footprint need = footprint_of(model, {1, 1, 1}, work, {});
  const std::int64_t embedding = 2 * model.vocab * model.hidden;
  EXPECT_EQ(need.weights + need.reading, std::max(2 * embedding, need.weights + need.reading));
  EXPECT_GE(need.weights + need.reading, 2 * embedding);
}

}  // namespace
}  // namespace reap
