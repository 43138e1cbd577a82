#include "shard/tally.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "kernels/error.hpp"

namespace reap {
namespace {

/// 3 layers, 4 experts, top-2; two samples of two tokens in two halves of one domain.
struct Fixture {
  Fixture() : backend{make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic)}, rows{*backend, 4} {
    model.layers = 3;
    model.router = {.experts = 4, .top_k = 2};
    samples.offsets = {0, 2, 4};
    samples.domain = {0, 0};
    rows.set(samples, {.index = 0, .first = 0, .last = 2, .begin = 0, .end = 4});
  }
  LayerTrace trace() const {
    return {nullptr, nullptr, expert.data(), gate_value.data(), position.data(), norm.data(), max_abs.data(), nullptr};
  }

  Model model{};
  Samples samples;
  std::unique_ptr<Backend> backend;
  BlockRows rows;
  std::array<std::int32_t, 8> expert{0, 1, 0, 3, 1, 3, 0, 1};
  std::array<float, 8> gate_value{0.5F, 0.5F, 0.25F, 0.75F, 0.5F, 0.5F, 1.0F, 0.0F};
  std::array<std::int32_t, 8> position{7, 6, 5, 4, 3, 2, 1, 0};
  std::array<float, 8> norm{1, 2, 3, 4, 5, 6, 7, 8};  // of slot s: 8 - s
  std::array<float, 8> max_abs{1, 2, 3, 4, 5, 6, 7, 9};
};

TEST(Tally, RanksAddUpOnce) {
  const Comm world(MPI_COMM_WORLD);
  Fixture f;
  // Stages of one layer each, and ranks beyond them replicas without blocks.
  const std::int64_t layer = world.rank() % 3;
  Tally tally(f.model, {layer, layer + 1}, f.samples.groups(), *f.backend);
  if (world.rank() < 3) {
    tally.add(layer, f.rows, f.trace());
  }
  Summation summation(world, *f.backend);
  const Saliency total = tally.all_sum(summation);
  for (std::int64_t l = 0; l < 3; ++l) {
    const bool counted = l < world.size();
    EXPECT_EQ(total.count(0, l, 0), counted ? 2 : 0);
    EXPECT_EQ(total.count(0, l, 1), counted ? 1 : 0);
    EXPECT_EQ(total.count(0, l, 2), 0);
    EXPECT_EQ(total.count(1, l, 3), counted ? 1 : 0);
    // Expert 0, first half: slots 0 and 2 with norms 8 and 6, gates 1/2 and 1/4.
    EXPECT_EQ(to_double(total.digits(Field::norm, 0, l, 0), kFractionBits), counted ? 14.0 : 0.0);
    EXPECT_EQ(to_double(total.digits(Field::gate_norm, 0, l, 0), kFractionBits), counted ? 5.5 : 0.0);
    EXPECT_EQ(to_double(total.digits(Field::gate_norm_sq, 0, l, 0), kSquareFractionBits), counted ? 18.25 : 0.0);
    EXPECT_EQ(total.max_abs[static_cast<std::size_t>(total.index(0, l, 0))], counted ? 9.0F : 0.0F);
  }
}

TEST(Tally, NamesTheSlotThatIsNotFinite) {
  Fixture f;
  f.norm[2] = std::numeric_limits<float>::quiet_NaN();  // position 2: slot 5, row 2, expert 3
  Tally tally(f.model, {1, 3}, f.samples.groups(), *f.backend);
  tally.add(1, f.rows, Fixture().trace());
  try {
    tally.add(2, f.rows, f.trace());
    FAIL() << "accepted NaN";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_NE(std::string(error.what()).find("layer 2, expert 3, sample 1 (domain 0, half 1), token 0"),
              std::string::npos)
        << error.what();
  }
}

/// Whether `work` fails on a number that is not finite, as the message `where` says.
template <class Work>
void expect_bad_slot(Work work, const std::string& where) {
  try {
    work();
    FAIL() << "accepted NaN";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_NE(std::string(error.what()).find(where), std::string::npos) << error.what();
  }
}

// The arrays of a layer take the values of the next one before anybody looks.
TEST(Tally, NamesTheFirstBadSlotOfABlockAtItsEnd) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Fixture f;
  Tally tally(f.model, {0, 3}, f.samples.groups(), *f.backend);
  f.gate_value[6] = kNan;  // row 3, expert 0
  tally.add(0, f.rows, f.trace());
  f.gate_value.fill(0.5F);
  f.expert.fill(2);
  f.norm[7] = kNan;  // slot 0
  tally.add(1, f.rows, f.trace());
  f.rows.set(f.samples, {.index = 1, .first = 1, .last = 2, .begin = 2, .end = 4});
  expect_bad_slot([&] { tally.add(2, f.rows, f.trace()); },
                  "layer 0, expert 0, sample 1 (domain 0, half 1), token 1 of it: gate value nan or norm 2 ");
}

TEST(Tally, LooksAtWhatNoBlockHasEndedBefore) {
  Fixture f;
  Fixture bad;
  bad.norm[2] = std::numeric_limits<float>::infinity();
  const std::string where = "layer 1, expert 3, sample 1 (domain 0, half 1), token 0 of it";
  {
    Tally tally(f.model, {0, 3}, f.samples.groups(), *f.backend);
    tally.add(1, f.rows, bad.trace());
    const Comm self(MPI_COMM_SELF);
    Summation summation(self, *f.backend);
    expect_bad_slot([&] { tally.all_sum(summation); }, where);
  }
  Tally tally(f.model, {0, 3}, f.samples.groups(), *f.backend);
  tally.add(1, f.rows, bad.trace());
  expect_bad_slot(
      [&] {
        for (int block = 0; block < 1000; ++block) tally.add(1, f.rows, f.trace());
      },
      where);
}

TEST(Tally, AddsToWhatWasSummedBefore) {
  const Comm world(MPI_COMM_WORLD);
  Fixture f;
  const auto sums = [&](int times, const Saliency& base) {
    Tally tally(f.model, {0, 3}, f.samples.groups(), *f.backend);
    for (int i = 0; i < times && world.rank() == 0; ++i) {
      for (std::int64_t layer = 0; layer < 3; ++layer) tally.add(layer, f.rows, f.trace());
    }
    Summation summation(world, *f.backend);
    return tally.all_sum(summation, base);
  };
  const Saliency in_one = sums(5, {});
  const Saliency in_two = sums(2, sums(3, {}));
  EXPECT_EQ(in_one.count(0, 2, 0), 10);
  EXPECT_EQ(in_two.sums, in_one.sums);
  EXPECT_EQ(in_two.max_abs, in_one.max_abs);
  EXPECT_EQ(sums(0, in_one).sums, in_one.sums);
  EXPECT_EQ(sums(0, in_one).max_abs, in_one.max_abs);
}

}  // namespace
}  // namespace reap
