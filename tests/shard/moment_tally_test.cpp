#include "shard/moment_tally.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "kernels/error.hpp"

namespace reap {
namespace {

/// 3 layers; inputs of 2 channels (attention, experts) and 4 (output).
struct Fixture {
  Fixture() {
    model.layers = 3;
    model.hidden = 2;
    model.attention.heads = 2;
    model.attention.head_dim = 2;
    model.router = {.experts = 4, .top_k = 2};
  }
  Placement placement(const Comm& world) const {
    return place(model, {world.size() == 4 ? 2 : world.size(), world.size() == 4 ? 2 : 1, 1}, world.rank());
  }

  Model model{};
  std::unique_ptr<Backend> backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  std::array<float, 4> x{1, 2, -3, 0.5F};
};

/// Every rank adds `rows` times the same row in each of its layers.
InputMoments all_pass(const Comm& world, const Fixture& f, int rows, const InputMoments& base) {
  const Range layers = f.placement(world).layers;
  MomentTally tally(f.model, layers, true, *f.backend);
  for (std::int64_t layer = layers.begin; layer < layers.end; ++layer) {
    for (int row = 0; row < rows; ++row) {
      const InputSums::Moments to = tally.at(layer);
      f.backend->accumulate_moments(f.x.data(), 1, 2, to.attention);
      f.backend->accumulate_moments(f.x.data(), 1, 4, to.output);
      f.backend->accumulate_moments(f.x.data() + 2, 1, 2, to.experts);
    }
  }
  return tally.all_sum(world, base);
}

std::vector<double> values(const InputMoments& moments, InputKind kind) {
  std::vector<double> all;
  for (const std::int64_t sum : moments.at(kind).sums) {
    all.push_back(std::ldexp(static_cast<double>(sum), -kMomentFractionBits));
  }
  return all;
}

TEST(MomentTally, RanksAddUp) {
  const Comm world(MPI_COMM_WORLD);
  const InputMoments sum = all_pass(world, Fixture(), 3, {});
  EXPECT_EQ(sum.empty(), world.rank() != 0);
  if (world.rank() != 0) return;
  const double times = world.size() == 4 ? 6 : 3;  // two shards hold each layer then
  std::vector<double> attention, output, experts;
  for (int layer = 0; layer < 3; ++layer) {
    for (const double product : {1.0, 2.0, 4.0}) attention.push_back(times * product);
    for (const double product : {1.0, 2.0, 4.0, -3.0, -6.0, 9.0, 0.5, 1.0, -1.5, 0.25}) {
      output.push_back(times * product);
    }
    for (const double product : {9.0, -1.5, 0.25}) experts.push_back(times * product);
  }
  EXPECT_EQ(values(sum, InputKind::attention), attention);
  EXPECT_EQ(values(sum, InputKind::output), output);
  EXPECT_EQ(values(sum, InputKind::experts), experts);
}

TEST(MomentTally, AddsToWhatWasSummedBefore) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f;
  EXPECT_EQ(all_pass(world, f, 2, all_pass(world, f, 3, {})), all_pass(world, f, 5, {}));
}

TEST(MomentTally, SumsOfRanksCarryAndAreChecked) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f;
  const Range layers = f.placement(world).layers;
  const auto all_sum = [&](std::int64_t each) {
    MomentTally tally(f.model, layers, true, *f.backend);
    tally.at(layers.begin).attention.sums[1] = each;
    return tally.all_sum(world, {});
  };
  // Digits of which the lower half carries; of either sign.
  for (const std::int64_t each : {(std::int64_t{1} << 40) + 0xffffffff, -(std::int64_t{1} << 40) - 1}) {
    const InputMoments sum = all_sum(each);
    if (world.rank() != 0) continue;
    EXPECT_EQ(sum.at(InputKind::attention).sums[1], (world.size() == 4 ? 2 : 1) * each);
  }
}

TEST(MomentTally, RefusesSumsThatLeaveTheRange) {
  const Comm self(MPI_COMM_SELF);
  const Fixture f;
  const auto half = [&](const InputMoments& base) {
    MomentTally tally(f.model, {0, 3}, true, *f.backend);
    tally.at(1).output.sums[4] = -kMomentEnd / 2;
    return tally.all_sum(self, base);
  };
  try {
    half(half({}));
    FAIL() << "went unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_NE(std::string(error.what()).find("layer 1: a moment of input 'output'"), std::string::npos) << error.what();
  }
}

TEST(MomentTally, NamesTheLayerThatIsNotFinite) {
  const Fixture f;
  MomentTally tally(f.model, {0, 3}, true, *f.backend);
  tally.check();
  const float huge[] = {1e30F, 1};
  f.backend->accumulate_moments(huge, 1, 2, tally.at(2).experts);
  try {
    tally.check();
    FAIL() << "went unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_NE(std::string(error.what()).find("layer 2"), std::string::npos) << error.what();
  }
}

TEST(MomentTally, HoldsNothingUnlessAsked) {
  const Fixture f;
  MomentTally tally(f.model, {0, 3}, false, *f.backend);
  EXPECT_EQ(tally.at(0).attention.sums, nullptr);
  EXPECT_TRUE(tally.all_sum(Comm(MPI_COMM_SELF), {}).empty());
}

}  // namespace
}  // namespace reap
