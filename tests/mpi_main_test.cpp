// The runner itself: a failure of one rank, planted below, must be counted as a failure of the test.
#include <gtest/gtest.h>
#include <mpi.h>

namespace {

int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int world_size() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

TEST(MpiMain, RanksMeet) {
  int sum = 0;
  const int one = 1;
  MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  EXPECT_EQ(sum, world_size());
}

// Run by MpiMainReports only, which expects this program to fail: see tests/CMakeLists.txt.
TEST(MpiMain, DISABLED_LastRankFails) { EXPECT_NE(world_rank(), world_size() - 1) << "planted"; }

}  // namespace
