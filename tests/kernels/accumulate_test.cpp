#include <algorithm>
#include <cmath>
#include <limits>

#include "backends.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::download;
using test::random_values;
using test::upload;

constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// Sums of a thousand doubles, each off by half a unit, against the exact sum.
constexpr double kDoubleSum = 1e-13;

struct Slots {
  std::int64_t rows, top_k, experts, groups;
  std::vector<std::int32_t> expert;
  std::vector<float> gate, norm, max_abs;  // norm and max_abs by grouped place
  std::vector<std::int32_t> position, group;
};

struct Sums {
  std::vector<std::int64_t> sums;
  std::vector<float> max_abs;
  std::int64_t bad_slot = kNone;
  bool operator==(const Sums&) const = default;
};

Sums accumulate(Backend& backend, const Slots& in, int times = 1) {
  const std::int64_t cells = in.groups * in.experts;
  const auto sums = upload(backend, std::vector<std::int64_t>(static_cast<std::size_t>(cells * kSumsPerExpert)));
  const auto max_abs = upload(backend, std::vector<float>(static_cast<std::size_t>(cells)));
  const auto bad = upload(backend, std::vector<std::int64_t>{kNone});
  for (int time = 0; time < times; ++time) {
    backend.accumulate(upload(backend, in.expert).data(), upload(backend, in.gate).data(),
                       upload(backend, in.norm).data(), upload(backend, in.max_abs).data(),
                       upload(backend, in.position).data(), upload(backend, in.group).data(), in.rows, in.top_k,
                       in.experts, sums.data(), max_abs.data(), bad.data());
  }
  return {download(backend, sums), download(backend, max_abs), download(backend, bad)[0]};
}

double field_sum(const Sums& got, std::int64_t cell, Field field) {
  const auto at = static_cast<std::size_t>(cell * kSumsPerExpert + digits_offset(field));
  const auto digits = std::span<const std::int64_t, kDigits>(got.sums.data() + at, kDigits);
  return to_double(digits, kFields[static_cast<std::size_t>(field)].fraction_bits);
}

std::int64_t count(const Sums& got, std::int64_t cell) {
  return got.sums[static_cast<std::size_t>(cell * kSumsPerExpert)];
}

Slots random_slots() {
  Slots in{.rows = 500,
           .top_k = 3,
           .experts = 17,
           .groups = 4,
           .expert = {},
           .gate = {},
           .norm = {},
           .max_abs = {},
           .position = {},
           .group = {}};
  for (std::int32_t slot = 0; slot < 1500; ++slot) {
    in.expert.push_back(slot * 7 % 17);
    in.position.push_back((slot * 11 + 3) % 1500);
  }
  for (std::int32_t row = 0; row < 500; ++row) in.group.push_back(row * 3 % 4);
  in.gate = random_values(1500, 1, 0, 1);
  in.norm = random_values(1500, 2, 0, 300);
  in.max_abs = random_values(1500, 3, 0, 20);
  return in;
}

/// Two tokens, two of three experts each; the last expert stays without a slot.
Slots two_tokens() {
  return {.rows = 2,
          .top_k = 2,
          .experts = 3,
          .groups = 2,
          .expert = {0, 1, 0, 1},
          .gate = {0.25f, 0.75f, 0.5f, 0.5f},
          .norm = {8, 2, 3, 16},
          .max_abs = {4, 1, 2, 9},
          .position = {0, 2, 1, 3},
          .group = {0, 1}};
}

class Accumulate : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(Accumulate);

TEST_P(Accumulate, ByHand) {
  Slots in = two_tokens();
  in.group = {1, 1};
  const Sums got = accumulate(*backend, in);
  const std::int64_t cell = 3;  // group 1, expert 0: (g, |f|) are (1/4, 8) and (1/2, 2)
  EXPECT_EQ(count(got, cell), 2);
  EXPECT_EQ(field_sum(got, cell, Field::gate), 0.75);
  EXPECT_EQ(field_sum(got, cell, Field::norm), 10);
  EXPECT_EQ(field_sum(got, cell, Field::gate_norm), 3);
  EXPECT_EQ(field_sum(got, cell, Field::norm_sq), 68);
  EXPECT_EQ(field_sum(got, cell, Field::gate_norm_sq), 5);
  EXPECT_EQ(got.max_abs, (std::vector<float>{0, 0, 0, 4, 9, 0}));
  EXPECT_EQ(got.bad_slot, kNone);
  EXPECT_TRUE(std::all_of(got.sums.begin(), got.sums.begin() + 3 * kSumsPerExpert, [](auto sum) { return sum == 0; }));
}

TEST_P(Accumulate, EqualsSumsInDouble) {
  const Slots in = random_slots();
  const Sums got = accumulate(*backend, in);
  for (std::int64_t cell = 0; cell < in.groups * in.experts; ++cell) {
    std::array<double, kFields.size()> expected{};
    std::int64_t slots = 0;
    float largest = 0;
    for (std::size_t slot = 0; slot < in.expert.size(); ++slot) {
      if (in.group[slot / 3] * in.experts + in.expert[slot] != cell) continue;
      const auto place = static_cast<std::size_t>(in.position[slot]);
      const double g = in.gate[slot];
      const double n = in.norm[place];
      const std::array<double, kFields.size()> values{g, n, g * n, n * n, g * n * g * n};
      for (std::size_t f = 0; f < values.size(); ++f) expected[f] += values[f];
      largest = std::max(largest, in.max_abs[place]);
      ++slots;
    }
    EXPECT_EQ(count(got, cell), slots);
    EXPECT_EQ(got.max_abs[static_cast<std::size_t>(cell)], largest);
    for (const FieldInfo& field : kFields) {
      const double sum = expected[static_cast<std::size_t>(field.field)];
      // Squares are kept to 2^-32, each rounded by half of that.
      const double rounding = std::ldexp(static_cast<double>(slots), -field.fraction_bits - 1);
      EXPECT_NEAR(field_sum(got, cell, field.field), sum, kDoubleSum * sum + rounding) << field.name << " of " << cell;
    }
  }
}

TEST_P(Accumulate, AddsToWhatIsThereAndIgnoresTheNumberOfThreads) {
  const Slots in = random_slots();
  const Sums once = accumulate(*backend, in);
  const Sums twice = accumulate(*backend, in, 2);
  for (std::size_t i = 0; i < once.sums.size(); ++i) ASSERT_EQ(twice.sums[i], 2 * once.sums[i]);
  EXPECT_EQ(twice.max_abs, once.max_abs);
  for (const int threads : {1, 3, 20}) EXPECT_TRUE(accumulate(*GetParam().make(threads), in) == once) << threads;
}

TEST_P(Accumulate, NamesTheFirstBadSlotAndLeavesItOut) {
  const Sums clean = accumulate(*backend, two_tokens());
  for (const float bad : {kNan, kInfinity, -kInfinity, -1.0f}) {
    for (const int where : {0, 1, 2}) {
      Slots in = two_tokens();
      (where == 0 ? in.gate[2] : where == 1 ? in.norm[1] : in.max_abs[1]) = bad;  // slot 2 is at place 1
      const Sums got = accumulate(*backend, in);
      EXPECT_EQ(got.bad_slot, 2) << bad << " in " << where;
      EXPECT_EQ(count(got, 3), 0);  // group 1, expert 0
      EXPECT_EQ(got.max_abs[3], 0.0f);
      EXPECT_EQ(count(got, 0), count(clean, 0));
    }
  }
}

TEST_P(Accumulate, NamesTheLowestOfSeveralOverThreads) {
  Slots in = random_slots();
  for (const std::size_t slot : {1400U, 700U, 701U, 702U}) in.gate[slot] = kNan;
  for (const int threads : {1, 2, 7}) EXPECT_EQ(accumulate(*GetParam().make(threads), in).bad_slot, 700);
}

TEST_P(Accumulate, TheFirstBadSlotOfAllCallsIsRecorded) {
  Slots in = two_tokens();
  const auto bad = upload(*backend, std::vector<std::int64_t>{kNone});
  const auto record = upload(*backend, std::vector<BadSlot>(1));
  const auto call = [&](std::int64_t number) {
    const auto expert = upload(*backend, in.expert);
    const auto gate = upload(*backend, in.gate), norm = upload(*backend, in.norm),
               max_abs = upload(*backend, in.max_abs);
    const auto position = upload(*backend, in.position), group = upload(*backend, in.group);
    const auto sums = upload(*backend, std::vector<std::int64_t>(6 * kSumsPerExpert));
    const auto table = upload(*backend, std::vector<float>(6));
    backend->accumulate(expert.data(), gate.data(), norm.data(), max_abs.data(), position.data(), group.data(), in.rows,
                        in.top_k, in.experts, sums.data(), table.data(), bad.data());
    backend->record_bad_slot(bad.data(), number, expert.data(), gate.data(), norm.data(), position.data(),
                             record.data());
    return download(*backend, record)[0];
  };
  EXPECT_EQ(call(0).slot, BadSlot::kNone);
  in.gate[2] = kInfinity;  // at place 1
  for (const std::int64_t number : {1, 2}) {
    const BadSlot got = call(number);
    EXPECT_EQ(got.slot, 2);
    EXPECT_EQ(got.call, 1);
    EXPECT_EQ(got.expert, 0);
    EXPECT_EQ(got.gate_value, kInfinity);
    EXPECT_EQ(got.norm, 2.0f);
    in.gate[0] = kNan;  // a lower slot, but later
  }
}

TEST_P(Accumulate, RefusesWhatDoesNotFit) {
  Slots in = two_tokens();
  in.norm[3] = 0x1p47f;  // slot 3; its square is 2^94: the largest power of two in Q95.32
  EXPECT_EQ(accumulate(*backend, in).bad_slot, kNone);
  in.norm[3] = 0x1p48f;
  const Sums got = accumulate(*backend, in);
  EXPECT_EQ(got.bad_slot, 3);
  EXPECT_EQ(field_sum(got, 4, Field::norm), 0);  // though that field alone would fit
}

TEST_P(Accumulate, TakesNoRows) {
  const Sums got = accumulate(*backend, {.rows = 0,
                                         .top_k = 2,
                                         .experts = 3,
                                         .groups = 1,
                                         .expert = {},
                                         .gate = {},
                                         .norm = {},
                                         .max_abs = {},
                                         .position = {},
                                         .group = {}});
  EXPECT_EQ(got.bad_slot, kNone);
  EXPECT_EQ(count(got, 0), 0);
}

}  // namespace
}  // namespace reap
