// Sums of squared activations against a plain double loop, and what is exact about them.
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/backends.hpp"
#include "kernels/fixed128.hpp"
#include "kernels/weights.hpp"

namespace reap::test {
namespace {

// A square is exact in double and rounded to 2^-33 once; the loop's own additions err by less.
constexpr double kRounding = 0x1p-33 * 1.01;

struct Squares {
  std::vector<double> sums;  // [groups, width]
  std::vector<std::int64_t> digits;
  std::int64_t bad;
};

Squares squares(Backend& on, const std::vector<float>& x, const std::vector<std::int32_t>& row,
                const std::vector<std::int64_t>& start, std::int64_t width) {
  const auto groups = static_cast<std::int64_t>(start.size()) - 1;
  const auto sums = upload(on, std::vector<std::int64_t>(static_cast<std::size_t>(groups * kSquareDigits * width)));
  const auto bad = upload(on, std::vector<std::int64_t>{0});
  const auto act = upload_act(on, x);
  const auto rows = upload(on, row);
  on.accumulate_squares(act.data(), row.empty() ? nullptr : rows.data(), start, width, {sums.data(), bad.data()});
  Squares got{{}, download(on, sums), download(on, bad)[0]};
  for (std::int64_t at = 0; at < groups * width; ++at) {
    const auto low = static_cast<std::size_t>(at / width * kSquareDigits * width + at % width);
    got.sums.push_back(static_cast<double>(got.digits[low + static_cast<std::size_t>(width)]) +
                       std::ldexp(static_cast<double>(got.digits[low]), -kSquareFractionBits));
  }
  return got;
}

using AccumulateSquares = BackendTest;
REAP_TEST_ON_BACKENDS(AccumulateSquares);

TEST_P(AccumulateSquares, FollowsTheLoop) {
  for (const std::int64_t width : {1, 7, 16, 53, 192}) {
    const std::vector<float> x = random_values(20 * width, 3);
    const std::vector<std::int64_t> start{0, 3, 3, 40, 41};
    std::vector<std::int32_t> row(41);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<std::int32_t>(i * 11 % 20);
    const Squares got = squares(*backend, x, row, start, width);
    EXPECT_EQ(got.bad, 0);
    for (std::size_t group = 0; group < 4; ++group) {
      for (std::int64_t channel = 0; channel < width; ++channel) {
        double expected = 0;
        for (std::int64_t place = start[group]; place < start[group + 1]; ++place) {
          const double value =
              as_act(*backend, x[static_cast<std::size_t>(row[static_cast<std::size_t>(place)] * width + channel)]);
          expected += value * value;
        }
        const double slots = static_cast<double>(start[group + 1] - start[group]);
        ASSERT_NEAR(got.sums[group * static_cast<std::size_t>(width) + static_cast<std::size_t>(channel)], expected,
                    kRounding * slots)
            << "width " << width << " group " << group << " channel " << channel;
      }
    }
  }
}

TEST_P(AccumulateSquares, DependsOnNoOrder) {
  const std::int64_t width = 37, rows = 64;
  const std::vector<float> x = random_values(rows * width, 5);
  std::vector<std::int32_t> backwards(static_cast<std::size_t>(rows));
  std::iota(backwards.rbegin(), backwards.rend(), 0);
  EXPECT_EQ(squares(*backend, x, backwards, {0, rows}, width).digits,
            squares(*backend, x, {}, {0, rows}, width).digits);
  for (const int threads : {1, 3}) {
    EXPECT_EQ(squares(*GetParam().make(threads), x, backwards, {0, rows}, width).digits,
              squares(*backend, x, {}, {0, rows}, width).digits);
  }
}

TEST_P(AccumulateSquares, IsExactFromOneEndOfTheRangeToTheOther) {
  const Squares got = squares(*backend, {0x1p-16F, 65280.0F, 0x1p-17F, 0.0F, -1.5F}, {}, {0, 1}, 5);
  EXPECT_EQ(got.bad, 0);
  EXPECT_EQ(got.sums, (std::vector<double>{0x1p-32, 65280.0 * 65280.0, 0.0, 0.0, 2.25}));
}

TEST_P(AccumulateSquares, TellsWhatIsOutOfRangeAndAddsTheRest) {
  for (const float value :
       {65536.0F, -65536.0F, 1e30F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const std::size_t place : {0UL, 20UL}) {
      std::vector<float> x(21, 2.0F);
      x[place] = value;
      const Squares got = squares(*backend, x, {}, {0, 1}, 21);
      EXPECT_EQ(got.bad, 1) << value;
      for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(got.sums[i], i == place ? 0.0 : 4.0) << value;
    }
  }
}

TEST_P(AccumulateSquares, AcceptsNoRows) {
  EXPECT_EQ(squares(*backend, {}, {}, {0, 0}, 3).sums, std::vector<double>(3));
}

}  // namespace
}  // namespace reap::test
