#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "backends.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/vector_ops.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::download;
using test::random_values;
using test::upload;
using test::upload_act;

constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// Half a unit in the last place of fp64, of which a term takes one for each of its elements and two for the rest.
constexpr double kHalfUnit = 0x1p-53;

struct Slots {
  std::int64_t rows, top_k, experts, hidden;
  std::vector<std::int32_t> expert, position;
  std::vector<float> gate, f;  // f by grouped place

  std::size_t place(std::int64_t row, std::int64_t k) const {
    return static_cast<std::size_t>(position[static_cast<std::size_t>(row * top_k + k)] * hidden);
  }
};

/// Experts ascend in each row; places are those of a backend that has spare rows and an order of its own.
Slots random_slots(std::int64_t rows, std::int64_t top_k, std::int64_t experts, std::int64_t hidden) {
  Slots in{rows, top_k, experts, hidden, {}, {}, {}, {}};
  std::mt19937 random(7);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::set<std::int32_t> chosen;
    while (std::cmp_less(chosen.size(), top_k)) chosen.insert(static_cast<std::int32_t>(random() % experts));
    in.expert.insert(in.expert.end(), chosen.begin(), chosen.end());
  }
  const auto slots = static_cast<std::int32_t>(rows * top_k);
  for (std::int32_t slot = 0; slot < slots; ++slot) in.position.push_back(slots + 2 - slot);
  in.gate = random_values(slots, 1, 0, 1);
  in.f = random_values((slots + 3) * hidden, 2, -3, 3);
  return in;
}

struct Sums {
  std::vector<std::int64_t> digits;
  std::int64_t bad_slot = kNone;
  bool operator==(const Sums&) const = default;
};

Sums pairs(Backend& backend, const Slots& in, int times = 1) {
  const auto entries = static_cast<std::size_t>(pair_count(in.experts));
  const auto sums = upload(backend, std::vector<std::int64_t>(entries * kDigits));
  const auto bad = upload(backend, std::vector<std::int64_t>{kNone});
  for (int time = 0; time < times; ++time) {
    backend.accumulate_pairs(upload(backend, in.expert).data(), upload(backend, in.gate).data(),
                             upload_act(backend, in.f).data(), upload(backend, in.position).data(), in.rows, in.top_k,
                             in.hidden, in.experts, sums.data(), bad.data());
  }
  return {download(backend, sums), download(backend, bad)[0]};
}

double sum_at(Sums& got, std::int64_t pair) {
  const std::span<std::int64_t, kDigits> digits(got.digits.data() + pair * kDigits, kDigits);
  EXPECT_TRUE(normalise_signed(digits));
  return signed_to_double(digits, kPairFractionBits);
}

std::vector<std::int64_t> outputs(Backend& backend, const Slots& in, int times = 1) {
  const auto sums = upload(backend, std::vector<std::int64_t>(static_cast<std::size_t>(in.experts * in.hidden)));
  for (int time = 0; time < times; ++time) {
    backend.accumulate_outputs(upload(backend, in.expert).data(), upload_act(backend, in.f).data(),
                               upload(backend, in.position).data(), in.rows, in.top_k, in.hidden, sums.data());
  }
  return download(backend, sums);
}

TEST(Pairs, AreNumberedRowByRow) {
  for (const std::int64_t items : {1, 2, 7, 256}) {
    std::int64_t next = 0;
    for (std::int64_t i = 0; i < items; ++i) {
      for (std::int64_t j = i; j < items; ++j) ASSERT_EQ(pair_index(i, j, items), next++);
    }
    EXPECT_EQ(pair_count(items), next);
  }
}

class AccumulateOutputs : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(AccumulateOutputs);

TEST_P(AccumulateOutputs, PairsByHand) {
  // Two tokens, two of three experts each, outputs of two elements.
  const Slots in{.rows = 2,
                 .top_k = 2,
                 .experts = 3,
                 .hidden = 2,
                 .expert = {0, 2, 0, 1},
                 .position = {1, 3, 0, 2},
                 .gate = {0.25f, 0.75f, 0.5f, 0.5f},
                 .f = {4, 8, 1, -2, 2, -3, 3, 5}};  // of slots 2, 0, 3, 1
  Sums got = pairs(*backend, in);
  EXPECT_EQ(sum_at(got, 0), 0.0625 * 5 + 0.25 * 80);  // (0, 0): 1 1 + 2 2 of the first, 4 4 + 8 8 of the second
  EXPECT_EQ(sum_at(got, 1), 0.25 * -16);              // (0, 1): 4 2 - 8 3
  EXPECT_EQ(sum_at(got, 2), 0.25 * 0.75 * -7);        // (0, 2): 1 3 - 2 5
  EXPECT_EQ(sum_at(got, 3), 0.25 * 13);               // (1, 1)
  EXPECT_EQ(sum_at(got, 4), 0);                       // (1, 2) never met
  EXPECT_EQ(sum_at(got, 5), 0.5625 * 34);             // (2, 2)
  EXPECT_EQ(got.bad_slot, kNone);
}

TEST_P(AccumulateOutputs, PairsEqualLoopsInDouble) {
  for (const auto& [rows, top_k, experts, hidden] : std::vector<std::array<std::int64_t, 4>>{{40, 8, 20, 64},
                                                                                             {7, 1, 3, 1},
                                                                                             {9, 2, 2, 7},
                                                                                             {5, 3, 9, 8},
                                                                                             {6, 5, 11, 100},
                                                                                             {3, 9, 9, 33},
                                                                                             {2, 17, 40, 257}}) {
    const Slots in = random_slots(rows, top_k, experts, hidden);
    Sums got = pairs(*backend, in);
    EXPECT_EQ(got.bad_slot, kNone);
    std::vector<double> expected(static_cast<std::size_t>(pair_count(experts))), size(expected);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t a = 0; a < top_k; ++a) {
        for (std::int64_t b = a; b < top_k; ++b) {
          const auto i = static_cast<std::size_t>(row * top_k + a), j = static_cast<std::size_t>(row * top_k + b);
          const auto at = static_cast<std::size_t>(pair_index(in.expert[i], in.expert[j], experts));
          const double gates = static_cast<double>(in.gate[i]) * static_cast<double>(in.gate[j]);
          for (std::size_t d = 0; std::cmp_less(d, hidden); ++d) {
            const double left = test::as_act(*backend, in.f[in.place(row, a) + d]);
            const double product =
                gates * left * static_cast<double>(test::as_act(*backend, in.f[in.place(row, b) + d]));
            expected[at] += product;
            size[at] += std::abs(product);
          }
        }
      }
    }
    const double quantum = std::ldexp(static_cast<double>(rows), -kPairFractionBits - 1);
    for (std::size_t at = 0; at < expected.size(); ++at) {
      const double rounding = 2 * static_cast<double>(hidden + rows + 3) * kHalfUnit * size[at];
      ASSERT_NEAR(sum_at(got, static_cast<std::int64_t>(at)), expected[at], rounding + quantum)
          << "pair " << at << ", top_k " << top_k << ", hidden " << hidden;
    }
  }
}

TEST_P(AccumulateOutputs, PairsAddToWhatIsThereAndIgnoreThreadsAndOtherRows) {
  const Slots in = random_slots(60, 4, 9, 37);
  const Sums once = pairs(*backend, in);
  const Sums twice = pairs(*backend, in, 2);
  for (std::size_t i = 0; i < once.digits.size(); ++i) ASSERT_EQ(twice.digits[i], 2 * once.digits[i]);
  for (const int threads : {1, 3, 20}) EXPECT_TRUE(pairs(*GetParam().make(threads), in) == once) << threads;

  std::vector<std::int64_t> by_row(once.digits.size());
  for (std::int64_t row = 0; row < in.rows; ++row) {
    Slots one = in;
    one.rows = 1;
    const auto from = [&](const auto& all) { return std::vector(all.begin() + row * 4, all.begin() + row * 4 + 4); };
    one.expert = from(in.expert);
    one.position = from(in.position);
    one.gate = from(in.gate);
    const Sums part = pairs(*backend, one);
    for (std::size_t i = 0; i < by_row.size(); ++i) by_row[i] += part.digits[i];
  }
  EXPECT_EQ(by_row, once.digits);
}

TEST_P(AccumulateOutputs, PairsNameTheFirstBadSlotAndLeaveItsTermsOut) {
  const Slots clean = random_slots(20, 3, 8, 21);
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (const std::int64_t k : {0, 1, 2}) {
      for (const bool in_gate : {false, true}) {
        Slots in = clean;
        for (const std::int64_t row : {5, 13}) {
          (in_gate ? in.gate[static_cast<std::size_t>(row * 3 + k)] : in.f[in.place(row, k) + 20]) = bad;
        }
        Sums got = pairs(*backend, in);
        EXPECT_EQ(got.bad_slot, 15 + k) << bad << " of slot " << k;
        for (std::int64_t pair = 0; pair < pair_count(8); ++pair) EXPECT_TRUE(std::isfinite(sum_at(got, pair)));
      }
    }
  }
}

TEST_P(AccumulateOutputs, PairsRefuseWhatDoesNotFit) {
  Slots in = random_slots(1, 2, 2, 1);
  in.gate = {1, 1};
  in.f[in.place(0, 0)] = 1;
  in.f[in.place(0, 1)] = 0x1p39f;  // its square is 2^78, the largest power of two in Q79.48
  Sums got = pairs(*backend, in);
  EXPECT_EQ(got.bad_slot, kNone);
  EXPECT_EQ(sum_at(got, 2), 0x1p78);
  in.f[in.place(0, 1)] = -0x1p40f;
  got = pairs(*backend, in);
  EXPECT_EQ(got.bad_slot, 1);
  EXPECT_EQ(sum_at(got, 1), -0x1p40);
  EXPECT_EQ(sum_at(got, 2), 0);
}

TEST_P(AccumulateOutputs, OutputsEqualRoundedElements) {
  for (const std::int64_t hidden : {1, 2, 3, 7, 8, 9, 31, 100}) {
    const Slots in = random_slots(30, 2, 5, hidden);
    const std::vector<std::int64_t> got = outputs(*backend, in);
    std::vector<std::int64_t> expected(got.size());
    for (std::size_t slot = 0; slot < in.expert.size(); ++slot) {
      for (std::int64_t i = 0; i < hidden; ++i) {
        const float value = test::as_act(*backend, in.f[static_cast<std::size_t>(in.position[slot] * hidden + i)]);
        expected[static_cast<std::size_t>(in.expert[slot] * hidden + i)] +=
            std::llrint(std::ldexp(static_cast<double>(value), kOutputFractionBits));
      }
    }
    EXPECT_EQ(got, expected) << hidden;
    for (const int threads : {1, 7}) EXPECT_EQ(outputs(*GetParam().make(threads), in), expected);
  }
}

TEST_P(AccumulateOutputs, OutputsRoundToNearestEvenAtEverySize) {
  const std::vector<float> values{0x1p-33f, -0x1p-33f, 0x1.8p-32f, -0x1.8p-32f, 0x1.4p-31f, 1.5f,      -0.0f,
                                  0x1p18f,  0x1p19f,   -0x1p19f,   0x1.fcp29f,  -0x1p29f,   0x1p-140f, 0x1.02p-26f};
  Slots in{1, 1, 1, static_cast<std::int64_t>(values.size()), {0}, {0}, {1}, values};
  const std::vector<std::int64_t> got = outputs(*backend, in);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(got[i], std::llrint(std::ldexp(static_cast<double>(values[i]), kOutputFractionBits))) << values[i];
  }
}

TEST_P(AccumulateOutputs, OutputsOutOfRangeLeaveTheOthersAlone) {
  Slots in = random_slots(1, 1, 1, 11);
  const std::vector<std::int64_t> clean = outputs(*backend, in);
  for (const float bad : {kNan, kInfinity, -kInfinity, 3e38f, -0x1p31f}) {
    in.f[in.place(0, 0) + 9] = bad;
    const std::vector<std::int64_t> got = outputs(*backend, in);
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(i == 9 || got[i] == clean[i]) << bad;
  }
}

TEST_P(AccumulateOutputs, TakesNoRows) {
  const Slots in{.rows = 0, .top_k = 2, .experts = 3, .hidden = 4, .expert = {}, .position = {}, .gate = {}, .f = {}};
  EXPECT_TRUE(pairs(*backend, in) == Sums{std::vector<std::int64_t>(6 * kDigits)});
  EXPECT_EQ(outputs(*backend, in), std::vector<std::int64_t>(12));
}

TEST(PairDots, HaveTheSameBitsInEveryBuild) {
  if (settle_isa(CpuIsa::automatic) < CpuIsa::avx512) GTEST_SKIP() << "no AVX-512 here";
  for (const std::int64_t width : {1, 8, 13, 400}) {
    const std::vector<float> f = random_values(9 * width, 3);
    const std::vector<std::int32_t> position{8, 1, 5, 0, 3, 2, 7};
    std::vector<double> narrow(28), wide(28);
    vector_ops(CpuIsa::avx2).pair_dots(f.data(), false, position.data(), 7, width, narrow.data());
    vector_ops(CpuIsa::avx512).pair_dots(f.data(), false, position.data(), 7, width, wide.data());
    EXPECT_EQ(narrow, wide) << width;
  }
}

}  // namespace
}  // namespace reap
