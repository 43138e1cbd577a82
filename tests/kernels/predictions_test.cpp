#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "backends.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::download;
using test::random_values;
using test::upload;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
/// An exponential in fp32 is off by 1.5 units, and its argument, a difference of at most 40, by half a unit of it.
constexpr double kFp32Exp = 4e-6;
/// Both sums over the vocabulary are off by about a unit of fp32; the difference of their logarithms stands in every
/// term of the divergence.
constexpr double kLogOfSums = 4 * 0x1p-24;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

/// A model's logits, [rows, vocab], and the tokens that came.
struct Rows {
  std::int64_t rows, vocab;
  std::vector<float> logits;
  std::vector<std::int32_t> target;

  double logit(std::int64_t row, std::int64_t id) const { return static_cast<double>(logits[at(row * vocab + id)]); }
};

std::vector<Prediction> predict(Backend& backend, const Rows& in) {
  const Buffer<Prediction> prediction(backend.memory(), in.rows);
  backend.predict(upload(backend, in.logits).data(), upload(backend, in.target).data(), in.rows, in.vocab,
                  prediction.data());
  return download(backend, prediction);
}

std::vector<Divergence> diverge(Backend& backend, const Rows& p, const Rows& q) {
  const auto p_prediction = upload(backend, predict(backend, p));
  const auto q_prediction = upload(backend, predict(backend, q));
  const Buffer<Divergence> divergence(backend.memory(), p.rows);
  backend.diverge(upload(backend, p.logits).data(), p_prediction.data(), upload(backend, q.logits).data(),
                  q_prediction.data(), p.rows, p.vocab, divergence.data());
  return download(backend, divergence);
}

/// The logarithm of the sum over e^logit of a row, in fp64.
double log_sum(const Rows& in, std::int64_t row) {
  double max = -std::numeric_limits<double>::infinity();
  for (std::int64_t id = 0; id < in.vocab; ++id) max = std::max(max, in.logit(row, id));
  double sum = 0;
  for (std::int64_t id = 0; id < in.vocab; ++id) sum += std::exp(in.logit(row, id) - max);
  return max + std::log(sum);
}

std::int32_t top_of(const Rows& in, std::int64_t row) {
  const auto first = in.logits.begin() + row * in.vocab;
  return static_cast<std::int32_t>(std::max_element(first, first + in.vocab) - first);
}

Rows random_rows(std::int64_t rows, std::int64_t vocab, std::uint32_t seed, float reach = 20) {
  Rows in{rows, vocab, random_values(rows * vocab, seed, -reach, reach), {}};
  for (std::int64_t row = 0; row < rows; ++row) {
    in.target.push_back(row % 5 == 4 ? -1 : static_cast<std::int32_t>(row * 7919 % vocab));
  }
  return in;
}

/// Rows near to those of `p`, as a pruned model's are.
Rows near_to(const Rows& p, std::uint32_t seed) {
  Rows q = p;
  const std::vector<float> change = random_values(p.rows * p.vocab, seed, -0.5f, 0.5f);
  for (std::size_t i = 0; i < change.size(); ++i) q.logits[i] += change[i];
  return q;
}

class Predictions : public test::BackendTest {
 protected:
  void expect_as_in_double(const Rows& p, const Rows& q) {
    const std::vector<Prediction> got = predict(*backend, p);
    const std::vector<Divergence> distance = diverge(*backend, p, q);
    for (std::int64_t row = 0; row < p.rows; ++row) {
      const double p_sum = log_sum(p, row);
      const double q_sum = log_sum(q, row);
      const std::int32_t target = p.target[at(row)];
      ASSERT_EQ(got[at(row)].top, top_of(p, row)) << row;
      ASSERT_EQ(static_cast<double>(got[at(row)].max), p.logit(row, got[at(row)].top)) << row;
      ASSERT_NEAR(got[at(row)].nll, target < 0 ? 0 : p_sum - p.logit(row, target), kFp32Exp) << row;
      double kl = 0;
      double overlap = 0;
      double reach = 0;
      for (std::int64_t id = 0; id < p.vocab; ++id) {
        const double log_p = p.logit(row, id) - p_sum;
        const double log_q = q.logit(row, id) - q_sum;
        kl += std::exp(log_p) * (log_p - log_q);
        reach += std::exp(log_p) * std::abs(log_p - log_q);
        overlap += std::exp(std::min(log_p, log_q));
      }
      // The error of each term; terms of both signs cancel.
      ASSERT_NEAR(distance[at(row)].kl, std::max(0.0, kl), kFp32Exp * reach + kLogOfSums) << row;
      ASSERT_NEAR(distance[at(row)].overlap, overlap, kFp32Exp) << row;
      ASSERT_GE(distance[at(row)].kl, 0) << row;
    }
  }
};
REAP_TEST_ON_BACKENDS(Predictions);

TEST_P(Predictions, ByHand) {
  // p = 1/4, 1/2, 1/4; q = 1/2, 1/4, 1/4.
  const float two = std::log(2.0f);
  const Rows p{1, 3, {0, two, 0}, {2}};
  const Rows q{1, 3, {two, 0, 0}, {-1}};
  const Prediction got = predict(*backend, p)[0];
  EXPECT_NEAR(got.sum, 2, kFp32Exp);  // of e^(logit - max): 1/2, 1, 1/2
  EXPECT_NEAR(got.nll, std::log(4.0), kFp32Exp);
  EXPECT_EQ(got.max, two);
  EXPECT_EQ(got.top, 1);
  EXPECT_EQ(predict(*backend, q)[0].nll, 0);
  const Divergence distance = diverge(*backend, p, q)[0];
  EXPECT_NEAR(distance.kl, std::log(2.0) / 4, kFp32Exp);  // -1/4 ln 2 + 1/2 ln 2 + 0
  EXPECT_NEAR(distance.overlap, 0.75, kFp32Exp);
}

TEST_P(Predictions, AsSumsInDouble) {
  for (const std::int64_t vocab : {1, 2, 15, 16, 17, 211, 4096, 4097}) {
    for (const std::int64_t rows : {1, 129}) {
      const Rows p = random_rows(rows, vocab, 1);
      expect_as_in_double(p, near_to(p, 2));
      expect_as_in_double(p, random_rows(rows, vocab, 3));
    }
  }
}

TEST_P(Predictions, OfTheRealVocabulary) {
  const Rows p = random_rows(3, 200064, 4);
  expect_as_in_double(p, near_to(p, 5));
  expect_as_in_double(p, random_rows(3, 200064, 6));
}

TEST_P(Predictions, OfEqualRowsAreEqual) {
  constexpr double kDoubleSum = 1e-12;
  for (const std::int64_t vocab : {1, 17, 200064}) {
    const Rows p = random_rows(3, vocab, 7);
    for (const Divergence& distance : diverge(*backend, p, p)) {
      EXPECT_EQ(distance.kl, 0);
      EXPECT_NEAR(distance.overlap, 1, kDoubleSum);
    }
  }
}

TEST_P(Predictions, TakeTheLowerIdOfEquals) {
  for (const std::int64_t vocab : {2, 17, 5000, 200064}) {
    for (const std::int64_t first : {std::int64_t{0}, vocab / 3, vocab - 2}) {
      Rows in{1, vocab, random_values(vocab, 8), {-1}};
      in.logits[at(first)] = in.logits[at(vocab - 1)] = 2;
      EXPECT_EQ(predict(*backend, in)[0].top, first) << vocab;
    }
  }
}

TEST_P(Predictions, OfExtremeLogits) {
  const Rows p{5,
               3,
               {kLargest, -kLargest, 0,           // sure of the first
                -kLargest, -kLargest, -kLargest,  // of nothing
                1e30f, 1e30f, -1e30f,             // of one of two
                -1e30f, 50, -50,                  //
                -200, -200.5f, -400},
               {1, 2, 0, 1, 2}};
  const Rows q{
      5, 3, {-kLargest, kLargest, 0, 1, 1, 1, 1e30f, 1e30f, -1e30f, -1e30f, 50, -50, 7, 6.5f, -7}, {0, 1, 2, 0, 1}};
  const std::vector<Prediction> got = predict(*backend, p);
  EXPECT_DOUBLE_EQ(got[0].nll, 2 * static_cast<double>(kLargest));
  EXPECT_NEAR(got[1].nll, std::log(3.0), kFp32Exp);
  EXPECT_NEAR(got[2].nll, std::log(2.0), kFp32Exp);
  EXPECT_NEAR(got[3].nll, 0, kFp32Exp);
  EXPECT_NEAR(got[4].nll, 200 + std::log(1 + std::exp(-0.5)), kFp32Exp);
  const std::vector<Divergence> distance = diverge(*backend, p, q);
  EXPECT_DOUBLE_EQ(distance[0].kl, 2 * static_cast<double>(kLargest));
  EXPECT_EQ(distance[0].overlap, 0);
  for (const std::size_t row : {1U, 2U, 3U}) {
    EXPECT_NEAR(distance[row].kl, 0, kFp32Exp) << row;
    EXPECT_NEAR(distance[row].overlap, 1, kFp32Exp) << row;
  }
}

TEST_P(Predictions, OfBrokenLogitsAreNotFinite) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (const std::int64_t vocab : {1, 17, 40}) {
      for (const std::int64_t place : {std::int64_t{0}, vocab - 1}) {
        const Rows whole = random_rows(3, vocab, 9);
        Rows broken = whole;
        broken.logits[at(vocab + place)] = bad;
        broken.target = {0, place == 0 ? static_cast<std::int32_t>(vocab - 1) : -1, -1};
        const std::vector<Prediction> got = predict(*backend, broken);
        EXPECT_TRUE(std::isfinite(got[0].nll) && std::isfinite(got[2].nll));
        EXPECT_FALSE(std::isfinite(got[1].nll)) << bad << " at " << place << " of " << vocab;
        const std::vector<Divergence> from = diverge(*backend, broken, whole);
        const std::vector<Divergence> to = diverge(*backend, whole, broken);
        EXPECT_FALSE(std::isfinite(from[1].kl) || std::isfinite(from[1].overlap)) << bad << " of " << vocab;
        EXPECT_FALSE(std::isfinite(to[1].kl) || std::isfinite(to[1].overlap)) << bad << " of " << vocab;
        EXPECT_TRUE(std::isfinite(from[0].kl) && std::isfinite(to[2].overlap));
      }
    }
  }
}

TEST_P(Predictions, OfARowAreItsOwn) {
  const Rows p = random_rows(129, 211, 10);
  const Rows q = near_to(p, 11);
  const std::vector<Prediction> together = predict(*backend, p);
  const std::vector<Divergence> distance = diverge(*backend, p, q);
  for (const int threads : {1, 3}) {
    const auto other = GetParam().make(threads);
    for (const std::int64_t row : {0, 64, 128}) {
      const auto one = [&](const Rows& all) {
        const auto first = all.logits.begin() + row * all.vocab;
        return Rows{1, all.vocab, {first, first + all.vocab}, {all.target[at(row)]}};
      };
      const Prediction alone = predict(*other, one(p))[0];
      EXPECT_EQ(alone.sum, together[at(row)].sum);
      EXPECT_EQ(alone.nll, together[at(row)].nll);
      const Divergence apart = diverge(*other, one(p), one(q))[0];
      EXPECT_EQ(apart.kl, distance[at(row)].kl);
      EXPECT_EQ(apart.overlap, distance[at(row)].overlap);
    }
  }
}

TEST_P(Predictions, OfNoRows) {
  const Rows none{0, 17, {}, {}};
  EXPECT_TRUE(predict(*backend, none).empty());
  EXPECT_TRUE(diverge(*backend, none, none).empty());
}

}  // namespace
}  // namespace reap
