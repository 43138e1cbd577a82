// Rounding with feedback against the textbook's optimal brain quantiser, which inverts the moments.
#include <cmath>
#include <numeric>

#include "kernels/backends.hpp"
#include "kernels/cpu/vector_ops.hpp"
#include "kernels/weights.hpp"

namespace reap::test {
namespace {

using Table = std::vector<double>;  // [size, size]

/// Inputs whose channels have much to do with one another.
std::vector<float> related_inputs(std::int64_t rows, std::int64_t width, unsigned seed) {
  std::vector<float> x = random_values(rows * width, seed);
  for (std::int64_t row = 0; row < rows; ++row) {
    float* const at = x.data() + row * width;
    for (std::int64_t i = 1; i < width; ++i) at[i] += 0.9F * at[i - 1];
  }
  return x;
}

std::vector<std::int64_t> moments_of(Backend& on, const std::vector<float>& x, std::int64_t rows, std::int64_t width) {
  const auto sums = upload(on, std::vector<std::int64_t>(static_cast<std::size_t>(moment_count(width))));
  const auto bad = upload(on, std::vector<std::int64_t>{0});
  const auto act = upload_act(on, x);
  on.accumulate_moments(act.data(), rows, width, {sums.data(), bad.data()});
  return download(on, sums);
}

/// The moments of one block as a table, with the damping.
Table damped(const std::vector<std::int64_t>& moments, std::int64_t first, std::int64_t size) {
  const std::int64_t* const triangle_of_block = moments.data() + first / kMomentBlock * triangle(kMomentBlock);
  Table table(static_cast<std::size_t>(size * size));
  double trace = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      const double value = std::ldexp(static_cast<double>(triangle_of_block[triangle(i) + j]), -kMomentFractionBits);
      table[static_cast<std::size_t>(i * size + j)] = table[static_cast<std::size_t>(j * size + i)] = value;
    }
    trace += table[static_cast<std::size_t>(i * size + i)];
  }
  for (std::int64_t i = 0; i < size; ++i) {
    table[static_cast<std::size_t>(i * size + i)] += kFeedbackDamping * trace / static_cast<double>(size);
  }
  return table;
}

/// By Gauss and Jordan.
Table inverse(Table table, std::int64_t size) {
  Table result(table.size());
  const auto at = [size](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * size + j); };
  for (std::int64_t i = 0; i < size; ++i) result[at(i, i)] = 1;
  for (std::int64_t k = 0; k < size; ++k) {
    const double pivot = table[at(k, k)];
    for (std::int64_t j = 0; j < size; ++j) table[at(k, j)] /= pivot, result[at(k, j)] /= pivot;
    for (std::int64_t i = 0; i < size; ++i) {
      const double factor = i == k ? 0 : table[at(i, k)];
      for (std::int64_t j = 0; factor != 0 && j < size; ++j) {
        table[at(i, j)] -= factor * table[at(k, j)];
        result[at(i, j)] -= factor * result[at(k, j)];
      }
    }
  }
  return result;
}

/// The codes of one block of a row by OBQ: each input is rounded, the rest moves by the inverse, the input leaves it.
std::vector<int> obq(std::vector<double> w, Table inverse_moments, const std::vector<double>& scale) {
  const std::size_t size = w.size();
  std::vector<int> codes;
  for (std::size_t i = 0; i < size; ++i) {
    const double q = std::clamp(std::nearbyint(w[i] / scale[i]), -8.0, 7.0);
    codes.push_back(static_cast<int>(q) + 8);
    const double step = (w[i] - q * scale[i]) / inverse_moments[i * size + i];
    for (std::size_t j = i; j < size; ++j) w[j] -= step * inverse_moments[i * size + j];
    const Table old = inverse_moments;
    for (std::size_t a = i + 1; a < size; ++a) {
      for (std::size_t b = i + 1; b < size; ++b) {
        inverse_moments[a * size + b] -= old[a * size + i] * old[i * size + b] / old[i * size + i];
      }
    }
  }
  return codes;
}

struct Rounded {
  std::vector<std::uint32_t> words;
  std::vector<std::uint16_t> scales;
  int code(std::int64_t at) const {
    return static_cast<int>(words[static_cast<std::size_t>(at / 8)] >> (at % 8 * 4) & 15U);
  }
};

Rounded searched(Backend& on, const StoredWeight& weight, std::int64_t group) {
  Rounded result{std::vector<std::uint32_t>(static_cast<std::size_t>(weight.rows() * weight.cols() / kNibbles)),
                 std::vector<std::uint16_t>(static_cast<std::size_t>(weight.rows() * weight.cols() / group))};
  on.quantize(weight.source(), {Rounding::opt_rtn, group}, nullptr, result.words.data(), result.scales.data());
  return result;
}

struct Gptq : testing::Test {
  std::unique_ptr<Backend> backend = make_cpu_backend(Compute::fp32, 3, CpuIsa::automatic);
  Rounded fed_back(const StoredWeight& weight, std::int64_t group, const Feedback& feedback) {
    Rounded result = searched(*backend, weight, group);
    backend->round_with_feedback(weight.source(), {Rounding::opt_rtn, group}, feedback, result.scales.data(),
                                 result.words.data());
    return result;
  }
};

TEST_F(Gptq, FactorsGiveTheMomentsBack) {
  constexpr double kRounding = 1e-5;  // factors are kept in fp32
  const std::int64_t size = 40;
  const std::vector<std::int64_t> moments = moments_of(*backend, related_inputs(90, size, 1), 90, size);
  const Feedback feedback = feedback_of(moments, size);
  const Table table = damped(moments, 0, size);
  // H = F D F^T, D being what is left on the diagonal when the inputs behind are taken out: from the last one on.
  std::vector<double> d(static_cast<std::size_t>(size));
  const auto f = [&](std::int64_t i, std::int64_t k) {
    return i == k ? 1.0 : static_cast<double>(feedback.factors[static_cast<std::size_t>(triangle(k) + i)]);
  };
  for (std::int64_t k = size - 1; k >= 0; --k) {
    double& own = d[static_cast<std::size_t>(k)];
    own = table[static_cast<std::size_t>(k * size + k)];
    for (std::int64_t m = k + 1; m < size; ++m) own -= f(k, m) * f(k, m) * d[static_cast<std::size_t>(m)];
    for (std::int64_t i = 0; i < k; ++i) {
      double sum = 0;
      for (std::int64_t m = k; m < size; ++m) sum += f(i, m) * f(k, m) * d[static_cast<std::size_t>(m)];
      ASSERT_NEAR(sum, table[static_cast<std::size_t>(i * size + k)], kRounding * table[0]) << i << " " << k;
    }
  }
}

TEST_F(Gptq, RoundsAsTheTextbookDoes) {
  // One in fp32, the other in double: what is half way between two integers for one need not be for the other, and
  // then the rest of the row goes another way.
  constexpr double kRowsThatPart = 0.05;
  for (const DType dtype : kWeightDTypes) {
    const std::int64_t rows = 67, cols = 96, group = 32;
    const StoredWeight weight = StoredWeight::random(dtype, rows, cols, 4);
    const std::vector<std::int64_t> moments = moments_of(*backend, related_inputs(300, cols, 5), 300, cols);
    const Rounded got = fed_back(weight, group, feedback_of(moments, cols));
    const Table inverted = inverse(damped(moments, 0, cols), cols);
    const Compute precision = dtype == DType::f8_e4m3 ? Compute::bf16 : Compute::fp32;
    std::int64_t parted = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<double> w, scale;
      for (std::int64_t col = 0; col < cols; ++col) {
        w.push_back(weight.value(row, col, precision));
        scale.push_back(f16_to_float(got.scales[static_cast<std::size_t>((row * cols + col) / group)]));
      }
      const std::vector<int> expected = obq(w, inverted, scale);
      for (std::int64_t col = 0; col < cols; ++col) {
        if (got.code(row * cols + col) == expected[static_cast<std::size_t>(col)]) continue;
        ++parted;
        break;
      }
    }
    EXPECT_LE(static_cast<double>(parted), kRowsThatPart * static_cast<double>(rows)) << name_of(dtype);
  }
}

TEST_F(Gptq, LowersTheErrorOfTheOutput) {
  constexpr double kShare = 0.6;  // of what the search leaves, with inputs as related as these
  const std::int64_t tokens = 500, rows = 20, cols = 256;
  const StoredWeight weight = StoredWeight::random(DType::bf16, rows, cols, 6);
  const std::vector<float> x = related_inputs(tokens, cols, 7);
  const auto error = [&](const Rounded& rounded) {
    double sum = 0;
    for (std::int64_t token = 0; token < tokens; ++token) {
      for (std::int64_t row = 0; row < rows; ++row) {
        double output = 0;
        for (std::int64_t col = 0; col < cols; ++col) {
          const double scale = f16_to_float(rounded.scales[static_cast<std::size_t>((row * cols + col) / 128)]);
          const double off = (rounded.code(row * cols + col) - 8) * scale - weight.value(row, col, Compute::fp32);
          output += off * x[static_cast<std::size_t>(token * cols + col)];
        }
        sum += output * output;
      }
    }
    return sum;
  };
  const Feedback feedback = feedback_of(moments_of(*backend, x, tokens, cols), cols);
  EXPECT_LT(error(fed_back(weight, 128, feedback)), kShare * error(searched(*backend, weight, 128)));
}

TEST_F(Gptq, BlocksDoNotDependOnOneAnother) {
  const std::int64_t rows = 9, cols = kMomentBlock + 64;
  const StoredWeight weight = StoredWeight::random(DType::bf16, rows, cols, 8);
  const std::vector<float> x = related_inputs(200, cols, 9);
  const Rounded whole = fed_back(weight, 32, feedback_of(moments_of(*backend, x, 200, cols), cols));
  StoredWeight last(DType::bf16, rows, 64);
  std::vector<float> inputs;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < 64; ++col) {
      last.set_bits(row, col, to_bf16(weight.value(row, kMomentBlock + col, Compute::fp32)).bits);
    }
  }
  for (std::int64_t token = 0; token < 200; ++token) {
    inputs.insert(inputs.end(), x.begin() + token * cols + kMomentBlock, x.begin() + (token + 1) * cols);
  }
  const Rounded alone = fed_back(last, 32, feedback_of(moments_of(*backend, inputs, 200, 64), 64));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < 64; ++col) {
      ASSERT_EQ(whole.code(row * cols + kMomentBlock + col), alone.code(row * 64 + col)) << row << " " << col;
    }
  }
}

TEST_F(Gptq, WithoutMomentsRoundsToTheNearest) {
  const StoredWeight weight = StoredWeight::random(DType::f32, 5, 64, 10);
  const Feedback none = feedback_of(std::vector<std::int64_t>(static_cast<std::size_t>(moment_count(64))), 64);
  EXPECT_EQ(fed_back(weight, 32, none).words, searched(*backend, weight, 32).words);
}

TEST_F(Gptq, InputsThatNeverComeAreRoundedToTheNearest) {
  const std::int64_t cols = 64;
  std::vector<float> x = related_inputs(100, cols, 11);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i % 64 >= 40) x[i] = 0;
  }
  const StoredWeight weight = StoredWeight::random(DType::f32, 7, cols, 12);
  const Rounded got = fed_back(weight, 32, feedback_of(moments_of(*backend, x, 100, cols), cols));
  const Rounded nearest = searched(*backend, weight, 32);
  for (std::int64_t row = 0; row < 7; ++row) {
    for (std::int64_t col = 40; col < cols; ++col)
      EXPECT_EQ(got.code(row * cols + col), nearest.code(row * cols + col));
  }
}

TEST(FeedbackTile, ARowHasTheSameBitsInEveryBuild) {
  if (settle_isa(CpuIsa::automatic) < CpuIsa::avx512) GTEST_SKIP() << "no AVX-512 here";
  const std::int64_t inputs = 160, group = 32, rows = vector_ops(CpuIsa::avx512).feedback_rows();
  const std::vector<float> weights = random_values(inputs * rows, 13);  // [inputs, rows]
  std::vector<float> factors = random_values(triangle(inputs), 14), scales(static_cast<std::size_t>(5 * rows), -0.2F);
  for (float& factor : factors) factor *= 0.1F;
  const auto run = [&](CpuIsa isa, std::int64_t first) {
    const VectorOps& vector = vector_ops(isa);
    const std::int64_t lanes = vector.feedback_rows();
    std::vector<float> own(static_cast<std::size_t>(inputs * lanes)), errors(own);
    for (std::int64_t i = 0; i < inputs * lanes; ++i) {
      own[static_cast<std::size_t>(i)] = weights[static_cast<std::size_t>(i / lanes * rows + first + i % lanes)];
    }
    std::vector<std::uint32_t> words(static_cast<std::size_t>(inputs / 8 * lanes));
    vector.round_with_feedback({own.data(), scales.data(), factors.data(), inputs, group, errors.data(), words.data()});
    return words;
  };
  const std::vector<std::uint32_t> wide = run(CpuIsa::avx512, 0);
  const std::int64_t lanes = vector_ops(CpuIsa::avx2).feedback_rows();
  for (std::int64_t first = 0; first < rows; first += lanes) {
    const std::vector<std::uint32_t> narrow = run(CpuIsa::avx2, first);
    for (std::int64_t i = 0; i < inputs / 8 * lanes; ++i) {
      ASSERT_EQ(narrow[static_cast<std::size_t>(i)],
                wide[static_cast<std::size_t>(i / lanes * rows + first + i % lanes)]);
    }
  }
}

}  // namespace
}  // namespace reap::test
