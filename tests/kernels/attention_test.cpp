#include <cmath>
#include <limits>

#include "backends.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::act_buffer;
using test::as_act;
using test::download_act;
using test::random_values;
using test::upload_act;

/// fp32 scores of up to 128 products and sums over up to 700 keys of values below 1.
constexpr double kFp32Sums = 4e-6;
/// Half a unit in the last place of bf16, to which results are rounded.
constexpr double kBf16Rounding = 0x1p-8;

double rounding_of(const Backend& backend) { return backend.compute() == Compute::bf16 ? kBf16Rounding : 0; }
/// Tensor cores multiply in bf16, so a GPU rounds a key's weight too before its product with the value.
double weight_rounding_of(const Backend& backend) {
  return backend.numerics_id().starts_with("cuda") ? rounding_of(backend) : 0;
}

class Attention : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(Attention);

struct Inputs {
  std::vector<float> q, k, v;
};

Inputs random_inputs(const AttentionShape& shape, std::int64_t rows, float spread) {
  return {random_values(rows * shape.heads * shape.head_dim, 1, -spread, spread),
          random_values(rows * shape.kv_heads * shape.head_dim, 2),
          random_values(rows * shape.kv_heads * shape.head_dim, 3)};
}

std::vector<std::int64_t> starts(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> start{0};
  for (const std::int64_t length : lengths) start.push_back(start.back() + length);
  return start;
}

std::vector<float> run(Backend& backend, const Inputs& in, const AttentionShape& shape,
                       const std::vector<std::int64_t>& start) {
  const auto out = act_buffer(backend, static_cast<std::int64_t>(in.q.size()));
  backend.attention(upload_act(backend, in.q).data(), upload_act(backend, in.k).data(),
                    upload_act(backend, in.v).data(), start, shape, out.data());
  return download_act(backend, out);
}

struct Expected {
  std::vector<double> out;
  std::vector<double> magnitude;  // the same sum of the values' magnitudes
};

/// One row and head by the definition, in double.
Expected by_definition(const Backend& backend, const Inputs& in, const AttentionShape& shape, std::int64_t first,
                       std::int64_t row, std::int64_t head) {
  const auto at = [&](const std::vector<float>& x, std::int64_t r, std::int64_t heads, std::int64_t h, std::int64_t d) {
    return static_cast<double>(as_act(backend, x[static_cast<std::size_t>((r * heads + h) * shape.head_dim + d)]));
  };
  const std::int64_t kv_head = head / (shape.heads / shape.kv_heads);
  std::vector<double> out(static_cast<std::size_t>(shape.head_dim)), magnitude(out.size());
  double total = 0;
  for (std::int64_t key = first; key <= row; ++key) {
    double score = 0;
    for (std::int64_t d = 0; d < shape.head_dim; ++d) {
      score += at(in.q, row, shape.heads, head, d) * at(in.k, key, shape.kv_heads, kv_head, d);
    }
    const double p = std::exp(score / std::sqrt(static_cast<double>(shape.head_dim)));
    total += p;
    for (std::int64_t d = 0; d < shape.head_dim; ++d) {
      const double value = at(in.v, key, shape.kv_heads, kv_head, d);
      out[static_cast<std::size_t>(d)] += p * value;
      magnitude[static_cast<std::size_t>(d)] += p * std::abs(value);
    }
  }
  for (double& value : out) value /= total;
  for (double& value : magnitude) value /= total;
  return {out, magnitude};
}

void expect_close(const Backend& backend, const Inputs& in, const AttentionShape& shape,
                  const std::vector<std::int64_t>& start, const std::vector<float>& got) {
  const double relative = rounding_of(backend);
  const double weights = weight_rounding_of(backend);
  for (std::size_t sample = 0; sample + 1 < start.size(); ++sample) {
    for (std::int64_t row = start[sample]; row < start[sample + 1]; ++row) {
      for (std::int64_t head = 0; head < shape.heads; ++head) {
        const auto [expected, magnitude] = by_definition(backend, in, shape, start[sample], row, head);
        const float* out = got.data() + (row * shape.heads + head) * shape.head_dim;
        for (std::size_t d = 0; d < expected.size(); ++d) {
          ASSERT_NEAR(out[d], expected[d], kFp32Sums + relative * std::abs(expected[d]) + weights * magnitude[d])
              << "sample " << sample << " row " << row - start[sample] << " head " << head << " dim " << d << " of "
              << shape.head_dim;
        }
      }
    }
  }
}

TEST_P(Attention, EqualsItsDefinition) {
  const std::vector<AttentionShape> shapes{{4, 2, 24, 12, 1e4, 0}, {6, 1, 40, 20, 1e4, 0}, {2, 2, 128, 64, 1e4, 0},
                                           {8, 1, 16, 16, 1e4, 0}, {3, 3, 7, 6, 1e4, 0},   {2, 1, 96, 64, 1e4, 0},
                                           {4, 1, 20, 20, 1e4, 0}, {1, 1, 256, 64, 1e4, 0}};
  const std::vector<std::int64_t> start = starts({1, 63, 0, 64, 65, 2, 129, 1, 300});
  for (const AttentionShape& shape : shapes) {
    const Inputs in = random_inputs(shape, start.back(), 1);
    expect_close(*backend, in, shape, start, run(*backend, in, shape, start));
  }
}

TEST_P(Attention, EqualsItsDefinitionForThousandsOfSamples) {
  const AttentionShape shape{2, 1, 8, 8, 1e4, 0};
  std::vector<std::int64_t> lengths;  // more samples than a launch lists on a GPU
  for (std::int64_t s = 0; s < 2'500; ++s) lengths.push_back(s * 5 % 4);
  const std::vector<std::int64_t> start = starts(lengths);
  const Inputs in = random_inputs(shape, start.back(), 1);
  expect_close(*backend, in, shape, start, run(*backend, in, shape, start));
}

TEST_P(Attention, EqualsItsDefinitionForALongSample) {
  const AttentionShape shape{2, 1, 32, 16, 1e4, 0};
  const std::vector<std::int64_t> start = starts({700});
  const Inputs in = random_inputs(shape, 700, 1);
  expect_close(*backend, in, shape, start, run(*backend, in, shape, start));
}

TEST_P(Attention, KeepsSmallTermsOfAVeryLongSample) {
  // Equal keys and values of one sign: a sum taken key by key would lose the terms once it has grown.
  const AttentionShape shape{1, 1, 8, 8, 1e4, 0};
  constexpr std::int64_t kLength = 40'000;
  const std::vector<std::int64_t> start = starts({kLength});
  Inputs in = random_inputs(shape, kLength, 1);
  for (float& value : in.k) value = 0.25F;
  for (float& value : in.v) value = 0.7F;
  const std::vector<float> got = run(*backend, in, shape, start);
  // A growing sum of 625 tiles of 64 keys is rounded 625 times; key by key it was off by 3.5e-4.
  constexpr double kSumsOfTiles = 625 * 0x1p-24;
  const double relative = backend->compute() == Compute::bf16 ? kBf16Rounding : kSumsOfTiles;
  for (std::int64_t row = kLength - 3; row < kLength; ++row) {
    const std::vector<double> expected = by_definition(*backend, in, shape, 0, row, 0).out;
    for (std::size_t d = 0; d < expected.size(); ++d) {
      EXPECT_NEAR(got[static_cast<std::size_t>(row) * 8 + d], expected[d], relative * expected[d]) << row << " " << d;
    }
  }
}

TEST_P(Attention, FollowsScoresThatGrowOrShrinkFromTileToTile) {
  const AttentionShape shape{1, 1, 8, 8, 1e4, 0};
  constexpr std::int64_t kLength = 200;
  const std::vector<std::int64_t> start = starts({kLength, kLength});
  Inputs in = random_inputs(shape, 2 * kLength, 1);
  for (std::int64_t row = 0; row < 2 * kLength; ++row) {
    const auto at = static_cast<std::size_t>(row * 8);
    const auto height = static_cast<float>(row < kLength ? row % kLength : kLength - row % kLength);
    in.q[at] = 1;
    in.k[at] = height;  // scores up to 70: exponentials of 1e30, were they not relative to the largest
  }
  const std::vector<float> got = run(*backend, in, shape, start);
  constexpr double kScoresOf70 = 4e-5;  // fp32 scores of this size are themselves off by 4e-6
  const double relative = rounding_of(*backend);
  const double weights = weight_rounding_of(*backend);
  for (const std::int64_t row : {0L, 63L, 64L, 199L, 200L, 264L, 399L}) {
    const auto [expected, magnitude] = by_definition(*backend, in, shape, row / kLength * kLength, row, 0);
    for (std::size_t d = 0; d < 8; ++d) {
      ASSERT_NEAR(got[static_cast<std::size_t>(row) * 8 + d], expected[d],
                  kScoresOf70 + relative * std::abs(expected[d]) + weights * magnitude[d]);
    }
  }
}

TEST_P(Attention, ASampleAloneHasTheBitsItHasAmongOthers) {
  for (const AttentionShape& shape : {AttentionShape{6, 1, 40, 20, 1e4, 0}, AttentionShape{8, 4, 24, 12, 1e4, 0}}) {
    const std::vector<std::int64_t> lengths{65, 1, 7, 129, 300, 64, 2};
    const std::vector<std::int64_t> start = starts(lengths);
    const Inputs in = random_inputs(shape, start.back(), 3);
    const std::vector<float> packed = run(*backend, in, shape, start);
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      const auto cut = [&](const std::vector<float>& x, std::int64_t heads) {
        const std::int64_t width = heads * shape.head_dim;
        return std::vector<float>(x.begin() + start[s] * width, x.begin() + start[s + 1] * width);
      };
      const Inputs one{cut(in.q, shape.heads), cut(in.k, shape.kv_heads), cut(in.v, shape.kv_heads)};
      EXPECT_EQ(run(*backend, one, shape, {0, lengths[s]}), cut(packed, shape.heads)) << "sample " << s;
    }
  }
}

TEST_P(Attention, BitsDoNotDependOnThreads) {
  const AttentionShape shape{4, 2, 40, 20, 1e4, 0};
  const std::vector<std::int64_t> start = starts({100, 333, 5});
  const Inputs in = random_inputs(shape, start.back(), 2);
  const std::vector<float> two = run(*backend, in, shape, start);
  for (const int threads : {1, 3, 8}) EXPECT_EQ(run(*GetParam().make(threads), in, shape, start), two) << threads;
}

TEST_P(Attention, NanReachesThoseWhoSeeItAndNobodyElse) {
  const AttentionShape shape{2, 1, 16, 16, 1e4, 0};
  constexpr std::int64_t kLength = 100;
  constexpr std::int64_t kBad = 70;  // a row of the middle sample
  const std::vector<std::int64_t> start = starts({kLength, kLength, kLength});
  Inputs in = random_inputs(shape, 3 * kLength, 1);
  const std::vector<float> clean = run(*backend, in, shape, start);
  in.k[static_cast<std::size_t>(kLength + kBad) * 16] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> got = run(*backend, in, shape, start);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i / 32);
    if (row >= kLength + kBad && row < 2 * kLength) {
      ASSERT_TRUE(std::isnan(got[i])) << row;
    } else {
      ASSERT_EQ(got[i], clean[i]) << row;
    }
  }
}

TEST_P(Attention, TakesNoRows) {
  const AttentionShape shape{2, 1, 16, 16, 1e4, 0};
  EXPECT_TRUE(run(*backend, {}, shape, {0}).empty());
  EXPECT_TRUE(run(*backend, {}, shape, {0, 0, 0}).empty());
}

}  // namespace
}  // namespace reap
