#include "shard/input_tally.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "kernels/error.hpp"

namespace reap {
namespace {

/// 3 layers, 4 experts; inputs of 2 (attention, experts), 6 (output) and 3 channels (inner).
struct Fixture {
  Fixture() {
    model.layers = 3;
    model.hidden = 2;
    model.attention.heads = 2;
    model.attention.head_dim = 3;
    model.router = {.experts = 4, .top_k = 2};
    model.expert.inner = 3;
  }

  Model model{};
  std::unique_ptr<Backend> backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  std::array<float, 6> x{1, 2, 3, 4, 0.5F, -0.5F};
};

/// A rank of a grid of stages, or beyond 3 of expert shards: one rank has all, four have 2 x 2.
Grid grid_of(int ranks) { return ranks == 4 ? Grid{2, 2, 1} : Grid{ranks, 1, 1}; }

/// Adds one row to every table of the own layers: attention and output by the first shard alone, of experts the own.
void add_row(InputTally& tally, const Fixture& f, const Placement& placement) {
  for (std::int64_t layer = placement.layers.begin; layer < placement.layers.end; ++layer) {
    const InputSums to = tally.at(layer, 1);
    const std::array<std::int64_t, 2> one{0, 1};
    if (placement.shard == 0) {
      f.backend->accumulate_squares(f.x.data(), nullptr, one, 2, to.attention);
      f.backend->accumulate_squares(f.x.data(), nullptr, one, 6, to.output);
    }
    std::vector<std::int64_t> start{0};  // expert 2 alone gets the row
    for (std::int64_t e = placement.experts.begin; e < placement.experts.end; ++e) {
      start.push_back(start.back() + (e == 2 ? 1 : 0));
    }
    f.backend->accumulate_squares(f.x.data(), nullptr, start, 2, to.experts);
    f.backend->accumulate_squares(f.x.data(), nullptr, start, 3, to.inner);
  }
}

Imatrix all_pass(const Comm& world, const Fixture& f, int rows, const Imatrix& base) {
  const Placement placement = place(f.model, grid_of(world.size()), world.rank());
  InputTally tally(f.model, placement, true, *f.backend);
  for (int row = 0; row < rows; ++row) add_row(tally, f, placement);
  return tally.all_sum(world, base);
}

std::vector<double> values(const Imatrix& imatrix, InputKind kind) {
  const Imatrix::Table& table = imatrix.at(kind);
  const auto row = static_cast<std::size_t>(kSquareDigits * table.width);
  std::vector<double> all;
  for (std::size_t at = 0; at < table.sums.size(); at += row) {
    EXPECT_TRUE(canonical_squares(std::span(table.sums).subspan(at, row)));
    for (std::int64_t i = 0; i < table.width; ++i) {
      all.push_back(square_sum(std::span(table.sums).subspan(at, row), i));
    }
  }
  return all;
}

TEST(InputTally, RanksAddUpOnce) {
  const Comm world(MPI_COMM_WORLD);
  const Imatrix sum = all_pass(world, Fixture(), 3, {});
  EXPECT_EQ(sum.empty(), world.rank() != 0);
  if (world.rank() != 0) return;
  std::vector<double> attention, output, experts, inner;
  for (int layer = 0; layer < 3; ++layer) {
    attention.insert(attention.end(), {3, 12});
    output.insert(output.end(), {3, 12, 27, 48, 0.75, 0.75});
    experts.insert(experts.end(), {0, 0, 0, 0, 3, 12, 0, 0});
    inner.insert(inner.end(), {0, 0, 0, 0, 0, 0, 3, 12, 27, 0, 0, 0});
  }
  EXPECT_EQ(values(sum, InputKind::attention), attention);
  EXPECT_EQ(values(sum, InputKind::output), output);
  EXPECT_EQ(values(sum, InputKind::experts), experts);
  EXPECT_EQ(values(sum, InputKind::inner), inner);
}

TEST(InputTally, AddsToWhatWasSummedBefore) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f;
  EXPECT_EQ(all_pass(world, f, 2, all_pass(world, f, 3, {})), all_pass(world, f, 5, {}));
}

TEST(InputTally, CarriesBeforeDigitsAreFull) {
  const Comm self(MPI_COMM_SELF);
  const Fixture f;
  const Placement placement = place(f.model, {1, 1, 1}, 0);
  InputTally tally(f.model, placement, true, *f.backend);
  // Each call says that a block of up to 2^30 rows follows, so that digits are carried before every one.
  constexpr std::int64_t kMany = std::int64_t{1} << 30;
  constexpr int kCalls = 5;
  for (int call = 0; call < kCalls; ++call) {
    const InputSums to = tally.at(1, kMany);
    to.attention.sums[0] -= std::int64_t{1} << 61;  // as far as so many rows can take a low digit
    to.attention.sums[2] += std::int64_t{1} << 44;
  }
  const std::vector<double> sums = values(tally.all_sum(self, {}), InputKind::attention);
  EXPECT_EQ(sums[2], kCalls * (0x1p44 - 0x1p29));
  EXPECT_EQ(sums[0], 0);
}

TEST(InputTally, NamesTheLayerThatIsOutOfRange) {
  const Fixture f;
  const Comm self(MPI_COMM_SELF);
  const auto expect_numerics = [](const char* words, const auto& act) {
    try {
      act();
      FAIL() << "accepted " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::numerics);
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  InputTally tally(f.model, place(f.model, {1, 1, 1}, 0), true, *f.backend);
  const float huge = 1e5F;
  f.backend->accumulate_squares(&huge, nullptr, std::array<std::int64_t, 2>{0, 1}, 1, tally.at(2, 1).output);
  expect_numerics("layer 2", [&] { tally.check(); });
  InputTally full(f.model, place(f.model, {1, 1, 1}, 0), true, *f.backend);
  full.at(1, 1).inner.sums[3] = kSquareSumEnd;
  expect_numerics("layer 1: a sum of squares of input 'inner'", [&] { full.all_sum(self, {}); });
}

TEST(InputTally, HoldsNothingUnlessAsked) {
  const Fixture f;
  InputTally tally(f.model, place(f.model, {1, 1, 1}, 0), false, *f.backend);
  EXPECT_EQ(tally.at(0, 8).attention.sums, nullptr);
  EXPECT_TRUE(tally.all_sum(Comm(MPI_COMM_SELF), {}).empty());
}

}  // namespace
}  // namespace reap
