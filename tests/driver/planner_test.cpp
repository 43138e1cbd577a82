#include "driver/planner.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "driver/expect_error.hpp"

namespace reap {
namespace {

/// 6 layers of 8 experts, so small that hand-made machines decide.
Model small_model() {
  Model model{};
  model.layers = 6;
  model.hidden = 64;
  model.vocab = 100;
  model.attention = {.heads = 2, .kv_heads = 1, .head_dim = 32, .rotary_dim = 2, .rope_theta = 1e4, .norm_eps = 1e-6F};
  model.router = {.experts = 8, .top_k = 2};
  model.expert = {.inner = 64};
  return model;
}

Workload workload(std::int64_t blocks, std::int64_t rows) {
  Samples samples;
  for (std::int64_t i = 0; i <= blocks; ++i) samples.offsets.push_back(i * rows);
  samples.domain.assign(static_cast<std::size_t>(blocks), 0);
  return workload_of(samples, rows);
}

/// Computes at 1 GFLOP/s, and everything else takes no time.
Machine computing_machine() {
  Machine machine;
  machine.bf16 = machine.fp32 = 1e9;
  machine.memory_rate = machine.layout = machine.read = machine.write = machine.link = 1e30;
  machine.read_total = machine.write_total = 1e30;
  return machine;
}

std::array<int, 3> numbers(const Grid& grid) { return {grid.pp, grid.ep, grid.dp}; }

struct Setting {
  Model model = small_model();
  Workload work = workload(64, 32);
  Machine machine = computing_machine();
  PlanningTask task(int ranks, std::int64_t memory = 0) const {
    return {model, work, machine, ranks, {}, WeightsMode::automatic, memory};
  }
  std::int64_t need(const Grid& grid) const { return footprint_of(model, grid, work, {}).total(); }
  /// The least with which a streamed rank can work.
  std::int64_t least_streamed(const Grid& grid, std::int64_t window) const {
    return footprint_of(model, grid, work, {.streamed = true, .weight_window = window, .wave_rows = work.max_rows()})
        .total();
  }
};

TEST(Planner, OfEqualGridsReplicasThenStages) {
  Setting s;
  s.work = workload(1, 32);
  EXPECT_EQ(numbers(choose_candidate(s.task(3)).grid), (std::array{3, 1, 1})) << "one block feeds one column";
  s.work = workload(64, 32);
  EXPECT_EQ(numbers(choose_candidate(s.task(1)).grid), (std::array{1, 1, 1}));
  EXPECT_EQ(numbers(choose_candidate(s.task(4)).grid), (std::array{1, 1, 4}));
  PlanningTask stages = s.task(4);
  stages.asked.dp = 1;
  EXPECT_EQ(numbers(choose_candidate(stages).grid), (std::array{1, 4, 1})) << "stages have to be filled, shards do not";
}

TEST(Planner, TimeDecides) {
  Setting s;
  s.machine.read_total = 1e3;  // every replica would read all weights through that
  EXPECT_NE(choose_candidate(s.task(2)).grid.dp, 2);
  s.machine.latency = 1;  // and shards talk a lot
  EXPECT_EQ(numbers(choose_candidate(s.task(2)).grid), (std::array{2, 1, 1}));
}

TEST(Planner, FormulasOnOneRank) {
  const Setting s;
  const Candidate one = choose_candidate(s.task(1));
  const double flops = 6 * 64 * 32 * layer_flops_per_token(s.model, s.work.mean_context);
  EXPECT_NEAR(one.time.total(), flops / 1e9, 1e-9);
  EXPECT_NEAR(choose_candidate(s.task(4)).time.total(), flops / 4e9, 1e-9);

  PlanningTask stages = s.task(3);
  stages.asked = {3, 1, 1};
  EXPECT_NEAR(choose_candidate(stages).time.total(), flops / 3e9 * (64 + 2) / 64, 1e-9) << "two steps to fill";
}

TEST(Planner, ResidentWhileAnyGridFits) {
  const Setting s;
  const std::int64_t halves = s.need({2, 1, 1});
  ASSERT_LT(halves, s.need({1, 1, 2}));
  const Candidate resident = choose_candidate(s.task(2, std::max(halves, s.need({1, 2, 1}))));
  EXPECT_FALSE(resident.holding.streamed);
  EXPECT_NE(resident.grid.dp, 2);
  EXPECT_TRUE(resident.fits);

  const std::int64_t few = std::min(halves, s.need({1, 2, 1})) - 1;
  const Candidate streamed = choose_candidate(s.task(2, few));
  EXPECT_TRUE(streamed.holding.streamed);
  EXPECT_LE(streamed.need.total(), few);
}

TEST(Planner, StreamingTakesTwoLayersThenTheLongestWave) {
  const Setting s;
  const Grid one{1, 1, 1};
  const std::int64_t layer = layer_bytes(s.model, one, s.work);
  const std::int64_t row = 4 * s.model.hidden;
  const auto streamed = [&](std::int64_t memory) {
    PlanningTask task = s.task(1, memory);
    task.weights = WeightsMode::stream;
    return choose_candidate(task);
  };
  const std::int64_t enough = s.least_streamed(one, 2 * layer);
  EXPECT_EQ(streamed(enough).holding.weight_window, 2 * layer);
  EXPECT_EQ(streamed(enough).holding.wave_rows, 32);
  EXPECT_EQ(streamed(enough).waves, 64);
  EXPECT_EQ(streamed(enough + 64 * row).holding.wave_rows, 96);
  EXPECT_EQ(streamed(enough + 64 * row).waves, 22);  // of 3 blocks
  EXPECT_EQ(streamed(enough + 1'000'000'000).holding.wave_rows, 64 * 32) << "no more rows than there are";
  EXPECT_EQ(streamed(0).holding.wave_rows, 64 * 32) << "memory unknown";

  EXPECT_EQ(streamed(enough - 100).holding.weight_window, 2 * layer - 100);
  EXPECT_EQ(streamed(enough - layer).holding.weight_window, layer);
  EXPECT_EQ(streamed(enough - layer).need.total(), enough - layer);
  expect_error(ExitCode::usage, {fmt::format("budget of {}", enough - layer)}, [&] { streamed(enough - layer - 1); });
}

TEST(Planner, ScratchHoldsTheWave) {
  Setting s;
  s.work.scratch = true;
  PlanningTask task = s.task(1, s.least_streamed({1, 1, 1}, 2 * layer_bytes(s.model, {1, 1, 1}, s.work)));
  task.weights = WeightsMode::stream;
  EXPECT_EQ(choose_candidate(task).holding.wave_rows, 64 * 32);
  EXPECT_EQ(choose_candidate(task).waves, 1);
}

TEST(Planner, SaysWhatWouldFit) {
  const Setting s;
  PlanningTask task = s.task(1, s.need({3, 1, 1}));
  task.weights = WeightsMode::resident;
  const auto choose = [&] { choose_candidate(task); };
  expect_error(
      ExitCode::usage,
      {"do not fit 1 rank of", "pp=1 ep=1 dp=1 resident needs", "--weights stream would fit", "ranks would fit"},
      choose);
  task.weights = WeightsMode::automatic;
  task.memory_bytes = 1000;
  expect_error(ExitCode::usage, {"streamed needs", "a --memory-budget of"}, choose);
}

TEST(Planner, LongBlocksAreWhatIsInTheWay) {
  Setting s;
  s.work = workload(4, 20'000);
  expect_error(ExitCode::usage, {"smaller --block-tokens"}, [&] { choose_candidate(s.task(1, 1'000'000)); });
}

TEST(Planner, PrefetchHidesReading) {
  Setting s;
  s.machine.read = 1e6;
  s.machine.read_total = 1e9;
  const Grid one{1, 1, 1};
  const double layer = static_cast<double>(layer_bytes(s.model, one, s.work));
  const auto time = [&](double window) {
    return pass_time(s.model, one, s.work,
                     {.streamed = true, .weight_window = static_cast<std::int64_t>(window * layer), .wave_rows = 1024},
                     s.machine);
  };
  const double read = layer / 1e6;
  const double busy = time(1).compute / 12;  // 2 waves of 6 layers
  ASSERT_LT(busy, read);
  EXPECT_NEAR(time(1).reading, 11 * read, 1e-3) << "nothing is read ahead";
  EXPECT_NEAR(time(2).reading, 11 * (read - busy), 1e-3) << "reading takes longer than computing";
  EXPECT_NEAR(time(2).load, read, 1e-6);
}

TEST(Planner, WavesLetStagesWorkAtOnce) {
  Setting s;
  PlanningTask task = s.task(3);
  task.asked = {3, 1, 1};
  task.weights = WeightsMode::stream;
  const Candidate waves = choose_candidate(task);  // weights cost nothing to read: the smallest waves
  EXPECT_EQ(waves.holding.wave_rows, 32);
  const double one_wave =
      pass_time(s.model, waves.grid, s.work,
                {.streamed = true, .weight_window = waves.holding.weight_window, .wave_rows = 64 * 32}, s.machine)
          .total();
  EXPECT_LT(waves.time.total(), 0.6 * one_wave);
}

}  // namespace
}  // namespace reap
