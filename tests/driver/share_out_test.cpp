#include "driver/share_out.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace reap {
namespace {

using Pieces = std::vector<std::size_t>;

TEST(ShareOut, GivesTheLargestFirstToTheLeastLoaded) {
  const std::vector<std::uint64_t> bytes{10, 40, 30, 20};  // 40 to 0, 30 to 1, 20 to 1, 10 to 0
  EXPECT_EQ(share_out(bytes, 2, 0), (Pieces{0, 1}));
  EXPECT_EQ(share_out(bytes, 2, 1), (Pieces{2, 3}));
}

TEST(ShareOut, SettlesTiesByNumber) {
  const std::vector<std::uint64_t> bytes(5, 7);
  EXPECT_EQ(share_out(bytes, 3, 0), (Pieces{0, 3}));
  EXPECT_EQ(share_out(bytes, 3, 1), (Pieces{1, 4}));
  EXPECT_EQ(share_out(bytes, 3, 2), (Pieces{2}));
}

TEST(ShareOut, EveryPieceIsSomebodysOnce) {
  const std::vector<std::uint64_t> bytes{0, 5, 1, 0, 900, 3, 3};
  for (int ranks = 1; ranks <= 9; ++ranks) {
    std::vector<int> owners(bytes.size(), 0);
    for (int rank = 0; rank < ranks; ++rank) {
      for (const std::size_t piece : share_out(bytes, ranks, rank)) ++owners[piece];
    }
    EXPECT_EQ(owners, std::vector<int>(bytes.size(), 1)) << ranks << " ranks";
  }
}

TEST(ShareOut, NothingToShare) { EXPECT_EQ(share_out({}, 4, 3), Pieces{}); }

}  // namespace
}  // namespace reap
