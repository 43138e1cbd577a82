// Squares of the inputs of linear layers over whole calibration files against an independent float64 implementation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "golden.hpp"
#include "kernels/check.hpp"
#include "observe_fixture.hpp"

namespace reap {
namespace {

constexpr double kFp32Relative = 1e-4;        // of a row's mean; two fp32 implementations of field sums differ by 4e-7
constexpr double kBf16MedianRelative = 2e-2;  // rounded activations and other choices; REAP itself moves by 3e-3
constexpr double kBf16Total = 1e-2;  // of a whole table, in which most of that cancels; FP8 weights round once more

struct ImatrixCase {
  const char* model;
  const char* tokens;
};

std::string case_name(const testing::TestParamInfo<ImatrixCase>& tested) {
  std::string name = tested.param.model;
  std::ranges::replace(name, '-', '_');
  return name;
}

/// Sums of one table beside the golden's, both [layers, experts where it is per expert, width].
struct Pair {
  std::vector<double> got, expected;
  std::size_t width;
};

Pair sums_of(const Imatrix& imatrix, InputKind kind, const test::GoldenFile& golden) {
  const Imatrix::Table& table = imatrix.at(kind);
  Pair pair{{}, golden.reals(std::string(name_of(kind))), static_cast<std::size_t>(table.width)};
  const std::size_t row = kSquareDigits * pair.width;
  for (std::size_t at = 0; at < table.sums.size(); at += row) {
    for (std::int64_t channel = 0; channel < table.width; ++channel) {
      pair.got.push_back(square_sum(std::span(table.sums).subspan(at, row), channel));
    }
  }
  return pair;
}

class GoldenImatrix : public testing::TestWithParam<ImatrixCase> {
 protected:
  Imatrix observe(Compute compute) const {
    const std::string tokens = std::string(GetParam().tokens) + ".h5";
    const test::Observer observer(test::data(GetParam().model), test::read_samples(test::data(tokens)), 4096);
    return observer.all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, compute).imatrix;
  }
  test::GoldenFile golden() const {
    return test::GoldenFile(test::data(fmt::format("goldens/{}/imatrix_{}.h5", GetParam().model, GetParam().tokens)));
  }
};

TEST_P(GoldenImatrix, Fp32SumsAgree) {
  const Imatrix imatrix = observe(Compute::fp32);
  const test::GoldenFile file = golden();
  for (const InputKind kind : kInputKinds) {
    const auto [got, expected, width] = sums_of(imatrix, kind, file);
    ASSERT_EQ(got.size(), expected.size()) << name_of(kind);
    for (std::size_t row = 0; row < got.size(); row += width) {
      double mean = 0;
      for (std::size_t i = 0; i < width; ++i) mean += expected[row + i] / static_cast<double>(width);
      for (std::size_t i = row; i < row + width; ++i) {
        ASSERT_NEAR(got[i], expected[i], kFp32Relative * (mean + expected[i])) << name_of(kind) << " entry " << i;
      }
    }
  }
}

TEST_P(GoldenImatrix, Bf16SumsFollow) {
  const Imatrix imatrix = observe(Compute::bf16);
  const test::GoldenFile file = golden();
  for (const InputKind kind : kInputKinds) {
    const auto [got, expected, width] = sums_of(imatrix, kind, file);
    ASSERT_EQ(got.size(), expected.size()) << name_of(kind);
    std::vector<double> differences;
    double sum = 0, expected_sum = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      sum += got[i];
      expected_sum += expected[i];
      if (expected[i] > 0) differences.push_back(std::abs(got[i] - expected[i]) / expected[i]);
    }
    const auto middle = differences.begin() + static_cast<std::ptrdiff_t>(differences.size() / 2);
    std::nth_element(differences.begin(), middle, differences.end());
    EXPECT_LE(*middle, kBf16MedianRelative) << name_of(kind);
    EXPECT_NEAR(sum, expected_sum, kBf16Total * expected_sum) << name_of(kind);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenImatrix,
                         testing::Values(ImatrixCase{"m2-mini-bf16", "random_v211"},
                                         ImatrixCase{"m2-mini-fp8", "random_v211"},
                                         ImatrixCase{"m2-nano-fp8", "calib_64x512"}),
                         case_name);

}  // namespace
}  // namespace reap
