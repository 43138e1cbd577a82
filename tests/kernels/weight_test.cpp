#include "kernels/weights.hpp"

#include <cstring>
#include <span>
#include <utility>

#include "kernels/backends.hpp"
#include "kernels/error.hpp"

namespace reap::test {
namespace {

class WeightTest : public BackendTest {
 protected:
  /// Element by element what `stored` multiplies with: rows of the unit matrix pick out columns, without rounding.
  void expect_exact(const StoredWeight& stored) {
    const std::int64_t cols = stored.cols();
    std::vector<float> unit(static_cast<std::size_t>(cols * cols), 0.0f);
    for (std::int64_t i = 0; i < cols; ++i) unit[static_cast<std::size_t>(i * cols + i)] = 1.0f;
    expect_products(stored, unit, *backend->pack(stored.source(), backend->compute()));
    expect_products(stored, unit, *read(stored));
  }

  /// Packed from what is read by as many threads as the backend likes.
  std::unique_ptr<Weight> read(const StoredWeight& stored) {
    WeightSource source = stored.source();
    const std::byte* const data = std::exchange(source.data, nullptr);
    const ReadBytes bytes = [&](std::uint64_t begin, std::span<std::byte> into) {
      std::memcpy(into.data(), data + begin, into.size());
    };
    return backend->read_weight(source, bytes, backend->compute());
  }

 private:
  void expect_products(const StoredWeight& stored, const std::vector<float>& unit, const Weight& weight) {
    const std::int64_t rows = stored.rows(), cols = stored.cols();
    const auto x = upload_act(*backend, unit);
    const Buffer<float> out(backend->memory(), cols * rows);
    backend->matmul(x.data(), cols, weight, out.data(), false);
    const std::vector<float> got = download(*backend, out);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        ASSERT_EQ(got[static_cast<std::size_t>(col * rows + row)], stored.value(row, col, backend->compute()))
            << "row " << row << " col " << col;
      }
    }
  }
};

TEST_P(WeightTest, KeepsEveryFiniteFp8CodeTimesItsScale) {
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{256, 256}, {300, 136}, {129, 130}}) {
    StoredWeight stored = StoredWeight::random(DType::f8_e4m3, rows, cols, 1);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const auto code = static_cast<std::uint32_t>(i * 7 % 256);
      stored.set_bits(i / cols, i % cols, (code & 0x7f) == 0x7f ? 0 : code);
    }
    expect_exact(stored);
  }
}

TEST_P(WeightTest, KeepsEveryFiniteBf16AndF16) {
  for (const auto& [dtype, exponent] : {std::pair{DType::bf16, 0x7f80U}, {DType::f16, 0x7c00U}}) {
    StoredWeight stored(dtype, 256, 256);
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      // A bf16 product may flush numbers that are subnormal in fp32: they are left out.
      const bool subnormal = dtype == DType::bf16 && (bits & exponent) == 0;
      stored.set_bits(bits / 256, bits % 256, (bits & exponent) == exponent || subnormal ? 0 : bits);
    }
    expect_exact(stored);
  }
}

TEST_P(WeightTest, RoundsF32ToNearestEvenForBf16) {
  StoredWeight stored = StoredWeight::random(DType::f32, 70, 40, 2);
  stored.set_bits(0, 0, 0x3f808000);  // half way between two bf16: down to the even one
  stored.set_bits(0, 1, 0x3f818000);  // up to the even one
  stored.set_bits(69, 39, 0x3f808001);
  expect_exact(stored);
}

TEST_P(WeightTest, ThrowsWhatReadingThrows) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    const std::int64_t rows = 2000, cols = 1024;
    WeightSource source{nullptr, dtype, rows, cols, nullptr};
    const auto fail_late = [&](std::uint64_t begin, std::span<std::byte> into) {
      const std::uint64_t last = static_cast<std::uint64_t>(rows * cols) * size_of(dtype) - 1;
      if (begin <= last && last < begin + into.size()) throw Error(ExitCode::io, "the disk is gone");
    };
    try {
      static_cast<void>(backend->read_weight(source, fail_late, backend->compute()));
      FAIL() << "packed what could not be read";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
    }
  }
}

TEST_P(WeightTest, KnowsItsShapeAndStaysInItsStoredType) {
  constexpr std::int64_t kRows = 512, kCols = 384;  // no padding
  for (const DType dtype : {DType::f8_e4m3, DType::bf16}) {
    const auto weight = backend->pack(StoredWeight::random(dtype, kRows, kCols, 3).source(), backend->compute());
    EXPECT_EQ(weight->rows(), kRows);
    EXPECT_EQ(weight->cols(), kCols);
    const auto stored = kRows * kCols * static_cast<std::int64_t>(size_of(dtype));
    EXPECT_GE(weight->bytes(), stored);
    EXPECT_LE(weight->bytes(), stored * 11 / 10) << "room for scales, none for a wider copy";
  }
}

TEST_P(WeightTest, MayBePackedByAnotherThreadCountWithTheSameBits) {
  const StoredWeight stored = StoredWeight::random(DType::f8_e4m3, 600, 96, 4);
  const auto x = upload_act(*backend, random_values(5 * 96, 5));
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    const auto other = GetParam().make(threads);
    const auto weight = other->pack(stored.source(), other->compute());
    const Buffer<float> out(other->memory(), 5 * 600);
    other->matmul(x.data(), 5, *weight, out.data(), false);
    results.push_back(download(*other, out));
  }
  EXPECT_EQ(results[0], results[1]);
}

REAP_TEST_ON_BACKENDS(WeightTest);

}  // namespace
}  // namespace reap::test
