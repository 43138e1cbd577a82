// Second moments of inputs against a plain double loop, and what is exact about them.
#include <cmath>
#include <limits>

#include "kernels/backends.hpp"
#include "kernels/cpu/vector_ops.hpp"
#include "kernels/weights.hpp"

namespace reap::test {
namespace {

struct Result {
  std::vector<std::int64_t> sums;
  std::int64_t bad;
  bool operator==(const Result&) const = default;
};

Result moments(Backend& on, const std::vector<float>& x, std::int64_t rows, std::int64_t width,
               std::vector<std::int64_t> base = {}) {
  base.resize(static_cast<std::size_t>(moment_count(width)));
  const auto sums = upload(on, base);
  const auto bad = upload(on, std::vector<std::int64_t>{0});
  const auto act = upload_act(on, x);
  on.accumulate_moments(act.data(), rows, width, {sums.data(), bad.data()});
  return {download(on, sums), download(on, bad)[0]};
}

struct Moments : testing::TestWithParam<std::tuple<Compute, int>> {
  std::unique_ptr<Backend> backend =
      make_cpu_backend(std::get<0>(GetParam()), std::get<1>(GetParam()), CpuIsa::automatic);
};
INSTANTIATE_TEST_SUITE_P(Cpu, Moments,
                         testing::Combine(testing::Values(Compute::fp32, Compute::bf16), testing::Values(1, 3)));

TEST(MomentCount, CountsTheTrianglesOfBlocks) {
  EXPECT_EQ(moment_count(1), 1);
  EXPECT_EQ(moment_count(256), 256 * 257 / 2);
  EXPECT_EQ(moment_count(1024), 1024 * 1025 / 2);
  EXPECT_EQ(moment_count(3072 + 32), 3 * (1024 * 1025 / 2) + 32 * 33 / 2);
}

TEST_P(Moments, FollowTheLoop) {
  constexpr double kSumInFp32 = 0x1p-24 * 512;  // of terms of unit size, at worst
  for (const auto& [rows, width] : {std::pair{1, 1}, {3, 7}, {20, 32}, {511, 33}, {700, 95}, {5, 1100}}) {
    const std::vector<float> x = random_values(rows * width, 3);
    const Result got = moments(*backend, x, rows, width);
    EXPECT_EQ(got.bad, 0);
    std::size_t at = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      for (std::int64_t j = i / kMomentBlock * kMomentBlock; j <= i; ++j, ++at) {
        double expected = 0, size = 0;
        for (std::int64_t row = 0; row < rows; ++row) {
          const double product = static_cast<double>(as_act(*backend, x[static_cast<std::size_t>(row * width + i)])) *
                                 as_act(*backend, x[static_cast<std::size_t>(row * width + j)]);
          expected += product;
          size += std::abs(product);
        }
        ASSERT_NEAR(std::ldexp(static_cast<double>(got.sums[at]), -kMomentFractionBits), expected,
                    kSumInFp32 * size + 2 * std::ldexp(0.51, -kMomentFractionBits))
            << rows << " rows, width " << width << ", channels " << i << " and " << j;
      }
    }
    ASSERT_EQ(at, got.sums.size());
  }
}

TEST_P(Moments, AddUpExactly) {
  const std::int64_t rows = 33, width = 70;
  const std::vector<float> a = random_values(rows * width, 5), b = random_values(rows * width, 6);
  const Result ab = moments(*backend, b, rows, width, moments(*backend, a, rows, width).sums);
  EXPECT_EQ(ab, moments(*backend, a, rows, width, moments(*backend, b, rows, width).sums));
}

TEST_P(Moments, DependOnNoOtherChannel) {
  const std::int64_t rows = 40, width = 77, narrow = 45;
  const std::vector<float> x = random_values(rows * width, 7);
  std::vector<float> first;
  for (std::int64_t row = 0; row < rows; ++row) {
    first.insert(first.end(), x.begin() + row * width, x.begin() + row * width + narrow);
  }
  const Result all = moments(*backend, x, rows, width), part = moments(*backend, first, rows, narrow);
  EXPECT_TRUE(std::equal(part.sums.begin(), part.sums.end(), all.sums.begin()));
}

TEST_P(Moments, TellWhatIsOutOfRange) {
  for (const float value :
       {0x1p21F, 1e30F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x(3 * 40, 2.0F);
    x[45] = value;
    EXPECT_EQ(moments(*backend, x, 3, 40).bad, 1) << value;
  }
  const std::vector<float> large(40, 0x1p20F);
  const Result once = moments(*backend, large, 1, 40);
  EXPECT_EQ(once.bad, 0);
  EXPECT_EQ(moments(*backend, large, 1, 40, once.sums).bad, 1);  // a sum of 2^61 units
}

TEST_P(Moments, AcceptNoRows) { EXPECT_EQ(moments(*backend, {}, 0, 40).sums, std::vector<std::int64_t>(820)); }

TEST(MomentTile, HasTheSameBitsInEveryBuild) {
  if (settle_isa(CpuIsa::automatic) < CpuIsa::avx512) GTEST_SKIP() << "no AVX-512 here";
  constexpr std::int64_t kRows = 77;
  const std::vector<float> a = random_values(kRows * kMomentPanel, 8), b = random_values(kRows * kMomentPanel, 9);
  std::vector<float> narrow(static_cast<std::size_t>(kMomentPanel * kMomentPanel)), wide(narrow);
  vector_ops(CpuIsa::avx2).moment_tile(a.data(), b.data(), kRows, narrow.data());
  vector_ops(CpuIsa::avx512).moment_tile(a.data(), b.data(), kRows, wide.data());
  EXPECT_EQ(narrow, wide);
}

}  // namespace
}  // namespace reap::test
