#include "driver/heldout.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "observe_fixture.hpp"

namespace reap {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Five samples of 2, 3, 1, 4 and 2 tokens in domains 1, 0, 1, 1, 0; a token tells its sample and place.
Samples five() {
  return test::samples_in_memory({0, 2, 5, 6, 10, 12}, {0, 1, 10, 11, 12, 20, 30, 31, 32, 33, 40, 41}, {1, 0, 1, 1, 0},
                                 2);
}

TEST(Heldout, TakesTheFirstSamplesOfEachDomain) {
  const Samples one = first_of_each_domain(five(), 1);
  EXPECT_EQ(one.offsets, (std::vector<std::int64_t>{0, 2, 5}));
  EXPECT_EQ(one.domain, (std::vector<std::uint8_t>{1, 0}));
  const Samples two = first_of_each_domain(five(), 2);
  EXPECT_EQ(two.offsets, (std::vector<std::int64_t>{0, 2, 5, 6, 8}));
  EXPECT_EQ(two.domain, (std::vector<std::uint8_t>{1, 0, 1, 0}));
  EXPECT_EQ(two.domains, 2);
  EXPECT_EQ(first_of_each_domain(five(), 3).samples(), 5);
  EXPECT_EQ(first_of_each_domain(five(), 0).samples(), 5);
}

TEST(Heldout, ReadsTheTokensOfWhatItTook) {
  const Samples two = first_of_each_domain(five(), 2);
  const Tokens all{0, 1, 10, 11, 12, 20, 40, 41};
  for (std::int64_t begin = 0; begin < two.tokens(); ++begin) {
    for (std::int64_t end = begin; end <= two.tokens(); ++end) {
      EXPECT_EQ(two.read_tokens(begin, end), Tokens(all.begin() + begin, all.begin() + end)) << begin << " to " << end;
    }
  }
}

}  // namespace
}  // namespace reap
