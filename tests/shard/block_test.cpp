#include "shard/block.hpp"

#include <gtest/gtest.h>

#include "kernels/error.hpp"

namespace reap {
namespace {

Samples three_samples() {
  Samples samples;
  samples.offsets = {0, 2, 5, 6};
  samples.domain = {1, 0, 2};
  samples.domains = 3;
  return samples;
}

TEST(BlockRows, KnowPositionGroupAndSample) {
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  BlockRows rows(*backend, 4);
  const Samples samples = three_samples();
  rows.set(samples, {.index = 1, .first = 1, .last = 3, .begin = 2, .end = 6});
  ASSERT_EQ(rows.rows(), 4);
  const std::vector<std::int32_t> position(rows.position(), rows.position() + 4);
  const std::vector<std::int32_t> group(rows.group(), rows.group() + 4);
  EXPECT_EQ(position, (std::vector<std::int32_t>{0, 1, 2, 0}));
  EXPECT_EQ(group, (std::vector<std::int32_t>{1, 1, 1, 4}));  // domain 0 half 1, domain 2 half 0
  EXPECT_EQ(std::vector<std::int64_t>(rows.start().begin(), rows.start().end()), (std::vector<std::int64_t>{0, 3, 4}));
  EXPECT_EQ(rows.sample_of(0), 1);
  EXPECT_EQ(rows.sample_of(2), 1);
  EXPECT_EQ(rows.sample_of(3), 2);
  EXPECT_EQ(rows.offset_in_sample(2), 2);
  EXPECT_EQ(rows.offset_in_sample(3), 0);

  rows.set(samples, {.index = 0, .first = 0, .last = 1, .begin = 0, .end = 2});
  EXPECT_EQ(rows.rows(), 2);
  EXPECT_EQ(rows.sample_of(1), 0);
  rows.clear();
  EXPECT_EQ(rows.rows(), 0);
  EXPECT_EQ(rows.start().size(), 1U);
}

TEST(BlockRows, RefuseBlocksBeyondTheirRoom) {
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  BlockRows rows(*backend, 2);
  EXPECT_THROW(rows.set(three_samples(), {.index = 0, .first = 1, .last = 2, .begin = 2, .end = 5}), Error);
}

}  // namespace
}  // namespace reap
