// GoogleTest under MPI: rank 0 prints, the others print only their failures, and a test that failed on any rank fails.
// A test must meet its collectives on every rank: an ASSERT that leaves early on one rank alone ends in mpirun's time
// limit.
#include <gtest/gtest.h>
#include <mpi.h>

#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

/// Ours alone, so that a message a test left behind is never taken for a result.
struct Ranks {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
};

Ranks join() {
  Ranks ranks;
  MPI_Comm_dup(MPI_COMM_WORLD, &ranks.comm);
  MPI_Comm_rank(ranks.comm, &ranks.rank);
  MPI_Comm_size(ranks.comm, &ranks.size);
  return ranks;
}

/// Carries the failures of the other ranks into rank 0's result, where GoogleTest's printer, XML and exit code see
/// them.
class OneResult : public testing::EmptyTestEventListener {
 public:
  explicit OneResult(const Ranks& ranks) : ranks_{ranks} {}

  void OnTestPartResult(const testing::TestPartResult& part) override {
    if (ranks_.rank == 0 || !part.failed()) return;
    std::ostringstream line;  // one write, so that ranks do not cut each other's lines
    line << "[rank " << ranks_.rank << "/" << ranks_.size << "] "
         << (part.file_name() ? part.file_name() : "unknown file") << ":" << part.line_number() << ": Failure\n"
         << part.message() << "\n";
    std::cerr << line.str() << std::flush;
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    const int failed = info.result()->Failed() ? 1 : 0;
    std::vector<int> all(static_cast<std::size_t>(ranks_.size));
    MPI_Gather(&failed, 1, MPI_INT, all.data(), 1, MPI_INT, 0, ranks_.comm);
    if (ranks_.rank != 0) return;
    std::string where;
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
      if (all[rank] != 0) where += " " + std::to_string(rank);
    }
    if (!where.empty()) ADD_FAILURE() << "failed on rank(s)" << where;
  }

 private:
  Ranks ranks_;
};

/// All ranks run the tests in one order; only rank 0 writes a report.
void agree_on_flags(const Ranks& ranks) {
  int seed = GTEST_FLAG_GET(random_seed);
  if (seed == 0) seed = static_cast<int>(std::time(nullptr) % 99999) + 1;  // the range that GoogleTest takes
  MPI_Bcast(&seed, 1, MPI_INT, 0, ranks.comm);
  GTEST_FLAG_SET(random_seed, seed);
  if (ranks.rank != 0) GTEST_FLAG_SET(output, "");
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  testing::InitGoogleTest(&argc, argv);
  Ranks ranks = join();
  agree_on_flags(ranks);

  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (ranks.rank != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new OneResult(ranks));  // NOLINT(cppcoreguidelines-owning-memory): GoogleTest deletes it

  const int mine = RUN_ALL_TESTS();
  int worst = mine;
  MPI_Allreduce(&mine, &worst, 1, MPI_INT, MPI_MAX, ranks.comm);
  MPI_Comm_free(&ranks.comm);
  MPI_Finalize();
  return worst;
}
