// A pass takes no more memory than it was given: the growth of the process, as the system sees it.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <string>

#include "driver/planner.hpp"
#include "driver/resources.hpp"
#include "golden.hpp"
#include "grid_fixture.hpp"
#include "shard/families.hpp"

namespace reap {
namespace {

std::int64_t weight_file_bytes(const std::filesystem::path& model) {
  std::int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (entry.path().extension() == ".safetensors") bytes += static_cast<std::int64_t>(entry.file_size());
  }
  return bytes;
}

Samples short_samples(std::int64_t vocab) {
  constexpr std::int64_t kSamples = 48;
  constexpr std::int64_t kLength = 32;
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int32_t> tokens;
  for (std::int64_t sample = 0; sample < kSamples; ++sample) {
    for (std::int64_t i = 0; i < kLength; ++i) {
      tokens.push_back(static_cast<std::int32_t>((sample * 131 + i * i * 17) % vocab));
    }
    offsets.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  return test::samples_in_memory(std::move(offsets), std::move(tokens), std::vector<std::uint8_t>(kSamples), 1);
}

/// Runs a streamed pass with a share of the model's bytes and compares its sums with those of a resident one.
void expect_within(int parts, const std::filesystem::path& path, const Collected& collected) {
  const std::int64_t budget = weight_file_bytes(path) / parts;
  const Comm alone(MPI_COMM_SELF);
  const auto observer_of = [&] {
    const Checkpoint checkpoint(path);
    return test::Observer(path, short_samples(describe_model(checkpoint).vocab), 32);
  };
  const test::Observer observer = observer_of();

  Workload work = workload_of(observer.samples(), 32);
  work.compute = Compute::bf16;
  test::Observer::Manner manner;
  work.collected = manner.collected = collected;
  const Machine machine = describe_machine({}, 1, CpuIsa::avx2);
  const Candidate chosen = choose_candidate({observer.model(), work, machine, 1, {}, WeightsMode::automatic, budget});
  ASSERT_TRUE(chosen.holding.streamed);
  EXPECT_LE(chosen.need.total(), budget);
  manner.compute = Compute::bf16;
  manner.holding = chosen.holding;

  malloc_trim(0);  // or what was freed before would hide what the pass takes
  const MemoryGrowth memory;
  const Saliency streamed = observer.all_run(alone, {1, 1, 1}, manner);
  const std::int64_t growth = memory.peak_bytes();
  if (growth == 0) GTEST_SKIP() << "this system does not tell the peak of a process";
  EXPECT_LE(growth, budget) << "estimated " << chosen.need.total() << ", window " << chosen.holding.weight_window
                            << ", wave of " << chosen.holding.wave_rows << " rows";
  std::printf("budget %.2f MB, growth %.2f MB, estimated %.2f MB\n", static_cast<double>(budget) * 1e-6,
              static_cast<double>(growth) * 1e-6, static_cast<double>(chosen.need.total()) * 1e-6);

  const Saliency resident = observer.all_run(alone, {1, 1, 1}, Compute::bf16);
  EXPECT_TRUE(test::same_bits(streamed.sums, resident.sums));
  EXPECT_TRUE(!collected.imatrix || streamed.imatrix == resident.imatrix);
  EXPECT_TRUE(!collected.moments || streamed.moments == resident.moments);
}

test::RandomModel layers_of_32_experts() {
  test::RandomModel model;
  model.layers = 6;
  model.experts = 32;
  model.hidden = 256;
  model.inner = 256;
  return model;
}

TEST(MemoryBudget, AQuarterOfARandomModelIsEnough) {
  const Comm alone(MPI_COMM_SELF);
  const test::SharedFolder folder(alone, layers_of_32_experts());
  expect_within(4, folder.path(), {.gram = true});
}

// Squares of inputs take 6 MB of 77.
TEST(MemoryBudget, AThirdIsEnoughWithSquaresOfInputs) {
  const Comm alone(MPI_COMM_SELF);
  const test::SharedFolder folder(alone, layers_of_32_experts());
  expect_within(3, folder.path(), {.gram = true, .imatrix = true});
}

TEST(MemoryBudget, HalfIsEnoughWithMoments) {
  const Comm alone(MPI_COMM_SELF);
  const test::SharedFolder folder(alone, layers_of_32_experts());
  expect_within(2, folder.path(), {.moments = true});
}

}  // namespace
}  // namespace reap
