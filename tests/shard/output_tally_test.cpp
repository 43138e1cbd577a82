#include "shard/output_tally.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "kernels/error.hpp"
#include "shard/tally.hpp"

namespace reap {
namespace {

/// 3 layers, 4 experts, top-2, outputs of two elements; two samples of two tokens.
struct Fixture {
  Fixture() : backend{make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic)}, rows{*backend, 4} {
    model.layers = 3;
    model.hidden = 2;
    model.router = {.experts = 4, .top_k = 2};
    samples.offsets = {0, 2, 4};
    samples.domain = {0, 0};
    rows.set(samples, {.index = 0, .first = 0, .last = 2, .begin = 0, .end = 4});
  }
  LayerTrace trace() const {
    return {nullptr,         nullptr,     expert.data(),  gate_value.data(),
            position.data(), norm.data(), max_abs.data(), reinterpret_cast<const std::byte*>(f.data())};
  }

  Model model{};
  Samples samples;
  std::unique_ptr<Backend> backend;
  BlockRows rows;
  std::array<std::int32_t, 8> expert{0, 1, 0, 3, 1, 3, 0, 1};
  std::array<float, 8> gate_value{0.5F, 0.5F, 0.25F, 0.75F, 0.5F, 0.5F, 1.0F, 0.0F};
  std::array<std::int32_t, 8> position{7, 6, 5, 4, 3, 2, 1, 0};
  std::array<float, 8> norm{1, 2, 3, 4, 5, 6, 7, 8};
  std::array<float, 8> max_abs{8, 8, 8, 8, 8, 8, 8, 8};
  std::array<float, 16> f{1, 2, 3, -4, 5, 6, -7, 8, 1, 1, 2, 2, 3, 3, 4, -4};  // of slot s: from 14 - 2 s on
};

/// A pass in which rank r < 3 has layer r, all of it; ranks beyond are replicas without blocks.
Saliency all_pass(const Comm& world, const Fixture& f, const Collected& collected, int times, const Saliency& base) {
  const std::int64_t layer = world.rank() % 3;
  const Range layers = world.size() == 1 ? Range{0, 3} : Range{layer, layer + 1};
  Tally tally(f.model, layers, f.samples.groups(), *f.backend);
  OutputTally outputs(f.model, layers, collected, *f.backend);
  for (int i = 0; i < times && world.rank() < 3; ++i) {
    for (std::int64_t own = layers.begin; own < layers.end; ++own) {
      tally.add(own, f.rows, f.trace());
      outputs.add(own, f.rows, f.trace());
    }
  }
  Summation summation(world, *f.backend);
  Saliency total = tally.all_sum(summation, base);
  outputs.all_sum(summation, base, total);
  return total;
}

TEST(OutputTally, RanksAddUpOnce) {
  const Comm world(MPI_COMM_WORLD);
  const Saliency total = all_pass(world, Fixture(), {.gram = true, .outputs = true}, 1, {});
  EXPECT_EQ(total.collected(), (Collected{world.rank() == 0, world.rank() == 0}));
  for (std::int64_t l = 0; l < 3 && world.rank() == 0; ++l) {
    const bool counted = world.size() == 1 || l < world.size();
    const auto gram = [&](std::int64_t i, std::int64_t j) { return counted ? total.gram_value(l, i, j) : 0; };
    // Expert 0: slots 0, 2, 6 with (g, f) = (1/2, (4, -4)), (1/4, (2, 2)), (1, (3, -4)); 1: 1, 4, 7; 3: 3, 5.
    EXPECT_EQ(gram(0, 0), counted ? 0.25 * 32 + 0.0625 * 8 + 25 : 0);
    EXPECT_EQ(gram(0, 1), counted ? 0.25 * (4 * 3 - 4 * 3) : 0);
    EXPECT_EQ(gram(1, 3), counted ? 0.25 * (-7 * 5 + 8 * 6) : 0);
    EXPECT_EQ(gram(2, 3), 0);
    const std::size_t at = static_cast<std::size_t>(l * 4) * 2;
    EXPECT_EQ(total.outputs[at], counted ? std::int64_t{9} << kOutputFractionBits : 0);
    EXPECT_EQ(total.outputs[at + 1], counted ? -(std::int64_t{6} << kOutputFractionBits) : 0);
  }
}

TEST(OutputTally, AddsToWhatWasSummedBefore) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f;
  const Collected both{.gram = true, .outputs = true};
  const Saliency in_one = all_pass(world, f, both, 5, {});
  const Saliency in_two = all_pass(world, f, both, 2, all_pass(world, f, both, 3, {}));
  EXPECT_EQ(in_two.gram, in_one.gram);
  EXPECT_EQ(in_two.outputs, in_one.outputs);
  // What is not collected any more goes.
  EXPECT_EQ(all_pass(world, f, {}, 2, in_one).collected(), Collected());
}

TEST(OutputTally, NamesTheSlotThatIsOutOfRange) {
  Fixture f;
  f.f[2 * 2] = 1e20F;  // position 2: slot 5, row 2, expert 3; its norm could still be one
  OutputTally tally(f.model, {1, 3}, {.gram = true}, *f.backend);
  tally.add(1, f.rows, Fixture().trace());
  try {
    tally.add(2, f.rows, f.trace());
    FAIL() << "accepted 1e40";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_NE(std::string(error.what()).find("layer 2, expert 3, sample 1, token 0"), std::string::npos)
        << error.what();
  }
}

TEST(OutputTally, OutputsMayNotLeaveTheirRange) {
  const Comm world(MPI_COMM_WORLD);
  Fixture f;
  const Collected outputs{.outputs = true};
  f.max_abs.fill(0x1p29F);  // expert 0 has three slots, as expert 1
  EXPECT_NO_THROW(all_pass(world, f, outputs, 1, {}));
  f.max_abs.fill(0x1p30F);
  try {
    all_pass(world, f, outputs, 1, {});
    FAIL() << "accepted 3 * 2^30";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_NE(std::string(error.what()).find("layer 0, expert 0"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace reap
