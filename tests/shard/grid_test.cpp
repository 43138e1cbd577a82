// The exactness promise: the field sums of a calibration pass are the same bits on every grid.
#include <gtest/gtest.h>
#include <limits>

#include "golden.hpp"
#include "grid_fixture.hpp"
#include "kernels/check.hpp"
#include "observe_fixture.hpp"
#include "random_checkpoint.hpp"
#include "shard/pipeline.hpp"

namespace reap {
namespace {

using test::expect_same;
using test::grids;
using test::Observer;
using test::odd_samples;
using test::SharedFolder;

void all_expect_equal_on_every_grid(const Comm& world, const Observer& observer) {
  const Comm alone(MPI_COMM_SELF);
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    const Saliency expected = observer.all_run(alone, {1, 1, 1}, compute);
    for (const Grid& grid : grids(world.size(), observer.model())) {
      SCOPED_TRACE(
          fmt::format("{} pp {} ep {} dp {}", compute == Compute::fp32 ? "fp32" : "bf16", grid.pp, grid.ep, grid.dp));
      const Saliency got = observer.all_run(world, grid, compute);
      expect_same(world, got, expected);
    }
  }
}

TEST(Grid, RandomModelGivesTheSameBits) {
  const Comm world(MPI_COMM_WORLD);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  all_expect_equal_on_every_grid(world, Observer(folder.path(), odd_samples(model.vocab), 64));
}

TEST(Grid, ColumnsWithoutBlocksTakePart) {
  const Comm world(MPI_COMM_WORLD);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer one_block(folder.path(), odd_samples(model.vocab), 1'000'000);
  ASSERT_EQ(one_block.blocks().size(), 1U);
  all_expect_equal_on_every_grid(world, one_block);
}

TEST(Grid, MiniGivesTheSameBits) {
  const Comm world(MPI_COMM_WORLD);
  for (const char* name : {"m2-mini-bf16", "m2-mini-fp8"}) {
    SCOPED_TRACE(name);
    all_expect_equal_on_every_grid(world,
                                   Observer(test::data(name), test::read_samples(test::data("random_v211.h5")), 200));
  }
}

TEST(Grid, BlocksOtherThanTheseGiveTheSameCounts) {
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  const Samples samples = test::read_samples(test::data("random_v211.h5"));
  const auto counts = [&](std::int64_t block_tokens) {
    const Observer observer(test::data("m2-mini-bf16"), samples, block_tokens);
    return totals(observer.all_run(alone, {1, 1, 1}, Compute::fp32)).count;
  };
  EXPECT_EQ(counts(1), counts(1'000'000));
}

/// The error of a pass over a model in which one weight is `value`, on a rank of its own.
Error error_of_poisoned(const Comm& world, const std::string& tensor, float value) {
  test::RandomModel model;
  model.edit = [&](const std::string& name, std::span<float> values) {
    if (name == tensor) values[values.size() / 2] = value;
  };
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), odd_samples(model.vocab), 64);
  try {
    observer.all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, Compute::fp32);
  } catch (const Error& error) {
    return error;
  }
  return Error(ExitCode::ok, "nothing thrown");
}

TEST(Pipeline, NonFiniteExpertIsNamed) {
  const Comm world(MPI_COMM_WORLD);
  const Error error = error_of_poisoned(world, "model.layers.1.block_sparse_moe.experts.4.w2.weight",
                                        std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(error.code(), ExitCode::numerics);
  EXPECT_NE(std::string(error.what()).find("layer 1, expert 4, sample"), std::string::npos) << error.what();
}

TEST(Pipeline, NonFiniteResidualIsFound) {
  const Comm world(MPI_COMM_WORLD);
  const Error error =
      error_of_poisoned(world, "model.layers.2.self_attn.o_proj.weight", std::numeric_limits<float>::infinity());
  EXPECT_EQ(error.code(), ExitCode::numerics);
  // The first row of the first sample already meets the broken weight.
  EXPECT_NE(std::string(error.what()).find("layer 2, expert"), std::string::npos) << error.what();
  EXPECT_NE(std::string(error.what()).find("sample 0 (domain 0, half 0), token 0"), std::string::npos) << error.what();
}

TEST(Pipeline, TokensOutsideTheVocabularyAreRefused) {
  const Comm world(MPI_COMM_WORLD);
  const Samples samples = test::samples_in_memory({0, 3}, {1, 211, 2}, {0}, 1);
  try {
    Observer(test::data("m2-mini-bf16"), samples, 64).all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, Compute::fp32);
    FAIL() << "accepted token 211 of 211";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_input);
    EXPECT_NE(std::string(error.what()).find("token 1 of the calibration data is 211"), std::string::npos)
        << error.what();
  }
}

// Ends the whole job, as the program does; run by pipeline_abort alone.
TEST(Pipeline, DISABLED_OneRankEndsTheJob) {
  const Comm world(MPI_COMM_WORLD);
  test::RandomModel model;
  model.edit = [](const std::string& name, std::span<float> values) {
    if (name.find("layers.3.block_sparse_moe.experts.") != name.npos)
      values[0] = std::numeric_limits<float>::infinity();
  };
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), odd_samples(model.vocab), 64);
  try {
    observer.all_run(world, {2, world.size() / 2, 1}, Compute::fp32);
  } catch (const Error& error) {
    std::filesystem::remove_all(folder.path());
    fmt::print(stderr, "rank {}: {}\n", world.rank(), error.what());
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(error.code()));
  }
}

TEST(Pipeline, ErrorsOfLoadingReachEveryRank) {
  const Comm world(MPI_COMM_WORLD);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), odd_samples(model.vocab), 64);
  const int broken = world.size() - 1;
  int layers = 0;
  Observer::Manner manner;
  manner.events.layer_read = [&](std::int64_t) {
    if (world.rank() == broken && ++layers == 2) fail(ExitCode::io, "disk of rank {} is gone", broken);
  };
  try {
    observer.all_run(world, {1, 1, world.size()}, manner);
    FAIL() << "nothing thrown";
  } catch (const SharedError& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_EQ(std::string(error.what()), fmt::format("disk of rank {} is gone", broken));
  }
}

TEST(Pipeline, EventsTellOfEveryLayerAndBlock) {
  const Comm world(MPI_COMM_WORLD);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), odd_samples(model.vocab), 64);
  std::int64_t read = 0;
  std::int64_t layers = 0;
  std::int64_t tokens = 0;
  Observer::Manner manner;
  manner.events.layer_read = [&](std::int64_t bytes) {
    EXPECT_GT(bytes, 0);
    ++read;
  };
  manner.events.layer_done = [&](const Block& block) { layers += block.rows(); };
  manner.events.block_done = [&](const Block& block) { tokens += block.rows(); };
  observer.all_run(world, {1, 1, world.size()}, manner);
  EXPECT_EQ(read, model.layers);
  EXPECT_EQ(layers, tokens * model.layers);
  world.all_sum(std::span(&tokens, 1));
  EXPECT_EQ(tokens, observer.samples().tokens());
}

}  // namespace
}  // namespace reap
