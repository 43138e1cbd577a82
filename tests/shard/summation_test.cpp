#include "shard/summation.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "mpi_device_comm.hpp"

namespace reap {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 20;

/// What rank r gives: numbers that fill their 64 bits, so that a detour over floating point would show.
std::vector<std::int64_t> values_of(int rank, std::int64_t count) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t value = (i * 0x123456789ABCDLL + rank) % (std::int64_t{1} << 60);
    values[static_cast<std::size_t>(i)] = i % 3 == 0 ? -value : value;
  }
  return values;
}

std::vector<std::int64_t> expected_sum(int ranks, std::int64_t count) {
  std::vector<std::int64_t> sum(static_cast<std::size_t>(count));
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<std::int64_t> values = values_of(rank, count);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
  }
  return sum;
}

void expect_sums(const ConnectDevices& connect) {
  const Comm world(MPI_COMM_WORLD);
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  Summation summation(world, *backend, connect);
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1000}, kPiece, 2 * kPiece + 3}) {
    std::vector<std::int64_t> values = values_of(world.rank(), count);
    summation.all_sum(values);
    EXPECT_TRUE(values == expected_sum(world.size(), count)) << count;
    values = values_of(world.rank(), count);
    summation.all_sum_at_first(values);
    if (world.rank() == 0) {
      EXPECT_TRUE(values == expected_sum(world.size(), count)) << count;
    }
  }
}

TEST(Summation, ByMpi) { expect_sums({}); }
TEST(Summation, FromDeviceToDevice) { expect_sums(test::connect_by_mpi); }

}  // namespace
}  // namespace reap
