#include "shard/saliency.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/error.hpp"

namespace reap {
namespace {

constexpr std::int64_t kBase = std::int64_t{1} << 32;  // of a digit

/// [2 groups, 2 layers, 3 experts] with one slot per cell; field sums a simple function of the cell.
Saliency sample_table() {
  Saliency saliency(2, 2, 3);
  for (std::int64_t group = 0; group < 2; ++group) {
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      for (std::int64_t expert = 0; expert < 3; ++expert) {
        saliency.count(group, layer, expert) = 1;
        for (const FieldInfo& info : kFields) {
          Digits digits{};
          const double value =
              static_cast<double>(1 + group + 10 * layer + 100 * expert) + 0.5 * static_cast<double>(info.field);
          EXPECT_TRUE(to_digits(value, info.fraction_bits, digits));
          std::copy(digits.begin(), digits.end(), saliency.digits(info.field, group, layer, expert).begin());
        }
        saliency.max_abs[static_cast<std::size_t>(saliency.index(group, layer, expert))] =
            static_cast<float>(group == 0 ? expert : layer);
      }
    }
  }
  return saliency;
}

TEST(Saliency, CellsDoNotOverlap) {
  Saliency saliency(2, 3, 4);
  ASSERT_EQ(saliency.sums.size(), static_cast<std::size_t>(2 * 3 * 4 * kSumsPerExpert));
  for (std::int64_t group = 0; group < 2; ++group) {
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      for (std::int64_t expert = 0; expert < 4; ++expert) {
        ++saliency.count(group, layer, expert);
        for (const FieldInfo& info : kFields) {
          for (std::int64_t& digit : saliency.digits(info.field, group, layer, expert)) ++digit;
        }
      }
    }
  }
  EXPECT_EQ(std::count(saliency.sums.begin(), saliency.sums.end(), 1), static_cast<std::int64_t>(saliency.sums.size()));
}

TEST(Saliency, NormaliseKeepsValuesAndMakesDigitsCanonical) {
  Saliency saliency = sample_table();
  Saliency scrambled = saliency;
  for (const FieldInfo& info : kFields) {
    const auto digits = scrambled.digits(info.field, 1, 0, 2);
    if (digits[1] == 0) continue;
    digits[1] -= 1;  // the same number, with a digit past its base
    digits[0] += kBase;
  }
  ASSERT_NE(scrambled.sums, saliency.sums);
  scrambled.normalise();
  saliency.normalise();
  EXPECT_EQ(scrambled.sums, saliency.sums);
}

TEST(Saliency, NormaliseNamesWhatOverflows) {
  Saliency saliency = sample_table();
  saliency.digits(Field::norm_sq, 1, 1, 2)[3] = kBase;
  try {
    saliency.normalise();
    FAIL() << "accepted a sum above 127 bits";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
    EXPECT_STREQ(error.what(), "layer 1, expert 2: the sum of field norm_sq is out of range");
  }
}

TEST(Saliency, ConservationNamesTheFirstBrokenLayer) {
  Saliency saliency = sample_table();  // 6 slots a layer: 3 tokens of top-2
  EXPECT_NO_THROW(saliency.check_conservation(3, 2));
  ++saliency.count(0, 1, 0);
  try {
    saliency.check_conservation(3, 2);
    FAIL() << "accepted a slot too many";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bug);
    EXPECT_NE(std::string(error.what()).find("layer 1: counts add up to 7"), std::string::npos) << error.what();
  }
}

TEST(Saliency, TotalsAddGroupsExactly) {
  const FieldTotals total = totals(sample_table());
  EXPECT_EQ(total.count, std::vector<std::int64_t>(6, 2));
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    for (std::int64_t expert = 0; expert < 3; ++expert) {
      const auto cell = static_cast<std::size_t>(layer * 3 + expert);
      EXPECT_EQ(total.max_abs[cell], static_cast<double>(std::max(layer, expert)));
      for (const FieldInfo& info : kFields) {
        const double both = static_cast<double>(3 + 20 * layer + 200 * expert) + static_cast<double>(info.field);
        EXPECT_EQ(total.sum[static_cast<std::size_t>(info.field)][cell], both);
      }
    }
  }
}

}  // namespace
}  // namespace reap
