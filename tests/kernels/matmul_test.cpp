#include <algorithm>
#include <limits>

#include "kernels/backends.hpp"
#include "kernels/weights.hpp"

namespace reap::test {
namespace {

// fp32 accumulators: error relative to the sum of magnitudes, for up to 3,072 terms (6e-7 was measured).
constexpr double kFp32Accumulation = 2e-6;

struct Shape {
  std::int64_t rows;  // of the weight
  std::int64_t cols;
};
constexpr Shape kShapes[] = {{1, 1}, {6, 160}, {211, 136}, {64, 8}, {128, 256}, {300, 144}, {513, 33}, {70, 3072}};

class MatmulTest : public BackendTest {
 protected:
  std::vector<float> multiply(Backend& on, const std::vector<float>& x, std::int64_t rows, const StoredWeight& stored) {
    const auto weight = on.pack(stored.source(), on.compute());
    const auto x_act = upload_act(on, x);
    const Buffer<float> out(on.memory(), rows * stored.rows());
    on.matmul(x_act.data(), rows, *weight, out.data(), false);
    return download(on, out);
  }

  void expect_near_exact(const std::vector<float>& got, const std::vector<float>& x, std::int64_t rows,
                         const StoredWeight& stored) {
    const std::vector<double> w = stored.values(backend->compute());
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<double> x_row;
      for (std::int64_t k = 0; k < stored.cols(); ++k) {
        x_row.push_back(as_act(*backend, x[static_cast<std::size_t>(row * stored.cols() + k)]));
      }
      for (std::int64_t n = 0; n < stored.rows(); ++n) {
        double exact = 0, magnitude = 0;
        for (std::size_t k = 0; k < x_row.size(); ++k) {
          const double product = x_row[k] * w[static_cast<std::size_t>(n) * x_row.size() + k];
          exact += product;
          magnitude += std::abs(product);
        }
        ASSERT_NEAR(got[static_cast<std::size_t>(row * stored.rows() + n)], exact, kFp32Accumulation * magnitude)
            << "row " << row << " output " << n << " of [" << stored.rows() << ", " << stored.cols() << "]";
      }
    }
  }
};

TEST_P(MatmulTest, EqualsTheExactProductForEveryStoredType) {
  for (const DType dtype : kWeightDTypes) {
    for (const Shape shape : kShapes) {
      SCOPED_TRACE(name_of(dtype));
      const StoredWeight stored = StoredWeight::random(dtype, shape.rows, shape.cols, 1);
      for (const std::int64_t rows : {1, 31, 70}) {
        const std::vector<float> x = random_values(rows * shape.cols, 2);
        expect_near_exact(multiply(*backend, x, rows, stored), x, rows, stored);
      }
    }
  }
}

TEST_P(MatmulTest, AcceptsZeroRows) {
  const StoredWeight stored = StoredWeight::random(DType::bf16, 40, 24, 1);
  EXPECT_TRUE(multiply(*backend, {}, 0, stored).empty());
}

TEST_P(MatmulTest, AddsTheRoundedProduct) {
  const StoredWeight stored = StoredWeight::random(DType::bf16, 300, 72, 1);
  constexpr std::int64_t kRows = 45;
  const std::vector<float> x = random_values(kRows * 72, 2), before = random_values(kRows * 300, 3);
  std::vector<float> expected = multiply(*backend, x, kRows, stored);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] + expected[i];
  const auto weight = backend->pack(stored.source(), backend->compute());
  const auto x_act = upload_act(*backend, x);
  const auto out = upload(*backend, before);
  backend->matmul(x_act.data(), kRows, *weight, out.data(), true);
  EXPECT_EQ(download(*backend, out), expected);
}

TEST_P(MatmulTest, RowsDependOnNothingElse) {
  for (const DType dtype : {DType::bf16, DType::f8_e4m3}) {
    for (const Shape shape : {Shape{211, 136}, {128, 256}, {520, 512}, {70, 3072}}) {
      const StoredWeight stored = StoredWeight::random(dtype, shape.rows, shape.cols, 1);
      const auto n = static_cast<std::size_t>(shape.rows), k = static_cast<std::size_t>(shape.cols);
      constexpr std::int64_t kRows = 1100;  // more than a task takes
      const std::vector<float> x = random_values(kRows * shape.cols, 2);
      const std::vector<float> together = multiply(*backend, x, kRows, stored);
      for (const int threads : {1, 3}) {
        const auto other = GetParam().make(threads);
        EXPECT_EQ(multiply(*other, x, kRows, stored), together) << threads << " threads";
      }
      for (const std::size_t rows : {1UL, 7UL, 33UL}) {
        for (const std::size_t first : {0UL, 5UL, 64UL, 1060UL}) {
          const std::vector<float> some(x.begin() + first * k, x.begin() + (first + rows) * k);
          const std::vector<float> expected(together.begin() + first * n, together.begin() + (first + rows) * n);
          EXPECT_EQ(multiply(*backend, some, static_cast<std::int64_t>(rows), stored), expected)
              << rows << " rows from " << first << " of [" << n << ", " << k << "]";
        }
      }
    }
  }
}

TEST_P(MatmulTest, KeepsRowsThatAreNotFiniteApart) {
  const StoredWeight stored = StoredWeight::random(DType::bf16, 50, 40, 1);
  std::vector<float> x = random_values(40 * 40, 2);
  const std::vector<float> clean = multiply(*backend, x, 40, stored);
  x[7 * 40 + 3] = std::numeric_limits<float>::quiet_NaN();
  x[33 * 40 + 3] = std::numeric_limits<float>::infinity();
  const std::vector<float> got = multiply(*backend, x, 40, stored);
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (i / 50 == 7 || i / 50 == 33)
      EXPECT_FALSE(std::isfinite(got[i])) << i;
    else
      EXPECT_EQ(got[i], clean[i]) << i;
  }
}

TEST_P(MatmulTest, ShowsNanCodesOfTheCheckpoint) {
  for (const std::uint32_t code : {0x7fU, 0xffU}) {
    StoredWeight stored = StoredWeight::random(DType::f8_e4m3, 140, 136, 1);
    stored.set_bits(131, 17, code);
    const std::vector<float> got = multiply(*backend, random_values(3 * 136, 2), 3, stored);
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(std::isnan(got[i]), i % 140 == 131) << i;
  }
}

REAP_TEST_ON_BACKENDS(MatmulTest);

}  // namespace
}  // namespace reap::test
