// How variants of a model predict samples: against sums in double of the same logits, and the same bits on every grid.
#include "shard/evaluation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "grid_fixture.hpp"
#include "shard/head.hpp"
#include "shard/layer.hpp"

namespace reap {
namespace {

using test::grids;
using test::Observer;
using test::SharedFolder;
using Manner = Observer::Manner;

/// Logits of up to 10, whose exponentials are fp32.
constexpr double kFp32Exp = 4e-6;

/// All experts; about half of them; as few as can be, other ones in each layer.
std::vector<KeptExperts> some_variants(const Model& model) {
  KeptExperts half, few;
  const auto experts = static_cast<std::int32_t>(model.router.experts);
  for (std::int32_t layer = 0; layer < model.layers; ++layer) {
    half.emplace_back();
    for (std::int32_t e = layer % 2; e < experts; e += 2) half.back().push_back(e);
    few.emplace_back();
    for (std::int32_t i = 0; i < model.router.top_k; ++i) few.back().push_back((layer + i * 2) % experts);
    std::ranges::sort(few.back());
  }
  return {{}, half, few};
}

PredictionSums all_evaluate(const Comm& comm, const Observer& observer, const Grid& grid, const Manner& manner) {
  PredictionSums sums(1, 1);
  observer.all_pass(comm, grid, manner, [&](Pulse& pulse, const PassPlan& plan, Backend& backend) {
    sums = reap::all_evaluate(comm, pulse, plan, backend, manner.events);
  });
  return sums;
}

/// Logits of every variant of every block, [rows, vocab].
class Logits final : public PassSink {
 public:
  Logits(const PassPlan& plan, Backend& backend)
      : plan_{plan}, head_{load_head(plan.checkpoint, plan.model, backend)}, forward_{plan.model, head_, backend} {}

  void last(const Block& block, std::int64_t variant, const BlockRows& rows, const float* x) override {
    std::vector<float>& to = of[{block.index, variant}];
    forward_.logits(x, rows.rows(), [&](std::int64_t, std::int64_t count, const float* logits) {
      to.insert(to.end(), logits, logits + count * plan_.model.vocab);
    });
  }

  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<float>> of;

 private:
  const PassPlan& plan_;
  Head head_;
  HeadForward forward_;
};

/// ln softmax of a row, in double.
std::vector<double> log_softmax(const float* logits, std::int64_t vocab) {
  std::vector<double> values(logits, logits + vocab);
  const double max = *std::ranges::max_element(values);
  double sum = 0;
  for (const double value : values) sum += std::exp(value - max);
  for (double& value : values) value -= max + std::log(sum);
  return values;
}

TEST(Evaluation, AsSumsInDouble) {
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), 200);  // more rows than a tile
  const Samples& samples = observer.samples();
  const Manner manner{.variants = some_variants(observer.model())};
  const PredictionSums got = all_evaluate(alone, observer, {1, 1, 1}, manner);

  std::vector<MeanMeasures> sums(static_cast<std::size_t>(got.variants() * got.groups()));
  observer.all_pass(alone, {1, 1, 1}, manner, [&](Pulse& pulse, const PassPlan& plan, Backend& backend) {
    Logits logits(plan, backend);
    all_pass(alone, pulse, plan, backend, logits);
    for (const Block& block : observer.blocks()) {
      const std::vector<std::int32_t> tokens = samples.read_tokens(block.begin, block.end);
      for (std::int64_t sample = block.first; sample < block.last; ++sample) {
        const std::int64_t first = samples.offsets[static_cast<std::size_t>(sample)];
        const std::int64_t last = samples.offsets[static_cast<std::size_t>(sample) + 1] - 1;
        for (std::int64_t row = first - block.begin; row < last - block.begin; ++row) {
          const auto of = [&](std::int64_t variant) {
            return log_softmax(logits.of[{block.index, variant}].data() + row * model.vocab, model.vocab);
          };
          const std::vector<double> p = of(0);
          const auto target = static_cast<std::size_t>(tokens[static_cast<std::size_t>(row) + 1]);
          for (std::int64_t variant = 0; variant < got.variants(); ++variant) {
            const std::vector<double> q = of(variant);
            MeanMeasures& sum = sums[static_cast<std::size_t>(variant * got.groups() + samples.group(sample))];
            ++sum.predicted;
            sum.nll -= q[target];
            for (std::size_t id = 0; id < p.size(); ++id) {
              sum.kl += std::exp(p[id]) * (p[id] - q[id]);
              sum.overlap += std::exp(std::min(p[id], q[id]));
            }
            sum.top1 += std::ranges::max_element(p) - p.begin() == std::ranges::max_element(q) - q.begin() ? 1 : 0;
          }
        }
      }
    }
  });
  for (std::int64_t variant = 0; variant < got.variants(); ++variant) {
    for (std::int64_t group = 0; group < got.groups(); ++group) {
      SCOPED_TRACE(fmt::format("variant {}, group {}", variant, group));
      const MeanMeasures& sum = sums[static_cast<std::size_t>(variant * got.groups() + group)];
      const MeanMeasures mean = got.mean(variant, std::array{group});
      const auto count = static_cast<double>(sum.predicted);
      ASSERT_EQ(mean.predicted, sum.predicted);
      ASSERT_GT(count, 0);
      EXPECT_NEAR(mean.nll, sum.nll / count, kFp32Exp);
      EXPECT_NEAR(mean.kl, sum.kl / count, kFp32Exp);
      EXPECT_NEAR(mean.overlap, sum.overlap / count, kFp32Exp);
      EXPECT_EQ(mean.top1, sum.top1 / count);
      EXPECT_EQ(mean.kl > 1e-3, variant > 0) << mean.kl;  // or the masks would not be seen
    }
  }
}

TEST(Evaluation, GivesTheSameBitsOnEveryGrid) {
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), 64);
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    Manner manner{.compute = compute, .variants = some_variants(observer.model())};
    const PredictionSums expected = all_evaluate(alone, observer, {1, 1, 1}, manner);
    for (const Grid& grid : grids(world.size(), observer.model())) {
      for (const std::int64_t wave_rows : {0, 64, 200}) {  // 0 = resident
        manner.holding = {.streamed = wave_rows > 0, .weight_window = 1'000'000, .wave_rows = wave_rows};
        SCOPED_TRACE(fmt::format("pp {} ep {} dp {}, waves of {} rows", grid.pp, grid.ep, grid.dp, wave_rows));
        const PredictionSums got = all_evaluate(world, observer, grid, manner);
        EXPECT_TRUE(std::ranges::equal(got.sums(), expected.sums()));
      }
    }
  }
}

TEST(Evaluation, OfAVariantDoesNotDependOnTheOthers) {
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), 64);
  const std::vector<KeptExperts> variants = some_variants(observer.model());
  const PredictionSums together = all_evaluate(alone, observer, {1, 1, 1}, {.variants = variants});
  const PredictionSums one = all_evaluate(alone, observer, {1, 1, 1}, {.variants = {variants[0], variants[2]}});
  const auto cells = static_cast<std::size_t>(one.sums().size() / 2);  // of a variant
  EXPECT_TRUE(std::ranges::equal(one.sums().first(cells), together.sums().first(cells)));
  EXPECT_TRUE(std::ranges::equal(one.sums().last(cells), together.sums().last(cells)));
}

/// Compares the model as its second variant with itself: one pass leaves the final hidden states for the other.
PredictionSums all_compare(const Comm& comm, const Observer& observer, const Grid& grid, Manner manner) {
  std::optional<FinalStates> states;
  const KeptExperts second = manner.variants.at(1);
  manner.variants.resize(1);
  observer.all_pass(comm, grid, manner, [&](Pulse& pulse, const PassPlan& plan, Backend& backend) {
    states.emplace(plan, backend);
    reap::all_evaluate(comm, pulse, plan, backend, {}, &*states);
  });
  manner.variants = {second};
  PredictionSums sums(1, 1);
  observer.all_pass(comm, grid, manner, [&](Pulse& pulse, const PassPlan& plan, Backend& backend) {
    sums = reap::all_compare(comm, pulse, plan, backend, {observer.checkpoint(), observer.model(), *states}, {});
  });
  return sums;
}

TEST(Evaluation, OfAnotherModelIsThatOfAVariant) {
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  const test::RandomModel model;
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), 64);
  Manner manner{.variants = some_variants(observer.model())};
  manner.variants.pop_back();
  const PredictionSums expected = all_evaluate(alone, observer, {1, 1, 1}, manner);
  for (const Grid& grid : grids(world.size(), observer.model())) {
    for (const std::int64_t wave_rows : {0, 200}) {  // 0 = resident
      for (const char* scratch : {"", "/tmp"}) {
        manner.holding = {.streamed = wave_rows > 0, .weight_window = 1'000'000, .wave_rows = wave_rows};
        manner.scratch = scratch;
        SCOPED_TRACE(fmt::format("pp {} ep {} dp {}, waves of {} rows, scratch '{}'", grid.pp, grid.ep, grid.dp,
                                 wave_rows, scratch));
        const PredictionSums got = all_compare(world, observer, grid, manner);
        EXPECT_TRUE(std::ranges::equal(got.sums(), expected.sums()));
      }
    }
  }
}

TEST(Evaluation, NamesWhatIsNotFinite) {
  const Comm world(MPI_COMM_WORLD);
  const Comm alone(MPI_COMM_SELF);
  test::RandomModel model;
  model.edit = [](const std::string& name, std::span<float> values) {
    if (name == "lm_head.weight") values[0] = std::numeric_limits<float>::quiet_NaN();
  };
  const SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), 64);
  try {
    all_evaluate(alone, observer, {1, 1, 1}, {});
    ADD_FAILURE() << "a broken head went through";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::numerics);
    EXPECT_NE(std::string(e.what()).find("sample 1 (domain 1, half 1), token 0"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace reap
