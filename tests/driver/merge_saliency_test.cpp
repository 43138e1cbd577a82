// Sums of saliency files: the same bytes whatever the order, and back again.
#include "driver/merge_saliency.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "driver/expect_error.hpp"
#include "driver/hdf5.hpp"
#include "driver/input_sums.hpp"
#include "driver/output_sums.hpp"
#include "driver/saliency_parts.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

constexpr std::int64_t kLayers = 3, kExperts = 5, kTopK = 2;

/// Sums as a pass could have left them: every token has its slots, every expert with slots has sums of full width.
SaliencyFile random_file(unsigned seed, const CalibrationPart& part) {
  std::mt19937 random(seed);
  const auto groups = static_cast<std::int64_t>(part.domains.size()) * 2;
  SaliencyFile file{{"minimax_m2", std::string(64, 'm'), "", "fp32", "cpu test", 64, 0, 0, kTopK, {}},
                    Saliency(groups, kLayers, kExperts)};
  set_parts(file.info, {part});
  Saliency& table = file.saliency;
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    for (std::int64_t token = 0; token < part.tokens; ++token) {
      const auto group = static_cast<std::int64_t>(random() % static_cast<unsigned>(groups));
      const auto first = static_cast<std::int64_t>(random() % kExperts);
      ++table.count(group, layer, first);
      ++table.count(group, layer, (first + 1) % kExperts);
    }
  }
  for (std::size_t cell = 0; cell < table.max_abs.size(); ++cell) {
    std::int64_t* sums = table.sums.data() + cell * kSumsPerExpert;
    if (sums[0] == 0) continue;
    for (std::int64_t i = 1; i < kSumsPerExpert; ++i) {
      sums[i] = (i - 1) % kDigits == kDigits - 1 ? random() % 1000 : random();
    }
    table.max_abs[cell] = static_cast<float>(random() % 100000) / 1000.0f + 0.001f;
  }
  add_output_sums(table, seed, 4);
  add_input_sums(table, seed);
  file.info.collected = table.collected();
  return file;
}

CalibrationPart part(char digest, std::int64_t first, std::int64_t last, std::vector<std::string> domains = {"all"}) {
  return {std::string(32, digest), first, last, 12, 7 * (last - first), std::move(domains)};
}

SaliencyFile bare_of(SaliencyFile file) {
  file.saliency.gram.clear();
  file.saliency.outputs.clear();
  file.saliency.hidden = 0;
  file.saliency.imatrix = {};
  return file;
}

class MergeSaliency : public testing::Test {
 protected:
  /// The file of these sums, read back once on the way: what is written is also what can be read.
  std::string bytes(const SaliencyFile& file) const {
    write_saliency(directory_ / "s.h5", file);
    const std::string written = read_text(directory_ / "s.h5");
    write_saliency(directory_ / "again.h5", read_saliency(directory_ / "s.h5"));
    EXPECT_EQ(written, read_text(directory_ / "again.h5"));
    return written;
  }

  TemporaryDirectory directory_;
};

/// Files that meet in every way: one domain and several, in other orders, whole files and parts of them.
std::vector<SaliencyFile> assorted() {
  return {random_file(1, part('a', 0, 12)),
          random_file(2, part('b', 0, 4, {"prose", "code"})),
          random_file(3, part('b', 8, 12, {"prose", "code"})),
          random_file(4, part('c', 3, 9, {"code", "prose", "maths"})),
          random_file(5, part('b', 4, 8, {"prose", "code"})),
          random_file(6, part('d', 0, 12, {"prose", "code"}))};
}

SaliencyFile sum_of(const std::vector<SaliencyFile>& files, const std::vector<std::size_t>& order) {
  SaliencyFile sum = files[order[0]];
  for (std::size_t i = 1; i < order.size(); ++i) sum = add(sum, files[order[i]]);
  return sum;
}

TEST_F(MergeSaliency, AnyOrderGivesTheSameBytes) {
  const std::vector<SaliencyFile> files = assorted();
  std::vector<std::size_t> order = {0, 1, 2, 3, 4, 5};
  const std::string expected = bytes(sum_of(files, order));
  std::mt19937 random(21);
  for (int i = 0; i < 30; ++i) {
    std::ranges::shuffle(order, random);
    EXPECT_EQ(bytes(sum_of(files, order)), expected);
  }
}

TEST_F(MergeSaliency, AnyNestingGivesTheSameBytes) {
  const std::vector<SaliencyFile> f = assorted();
  for (std::size_t i = 0; i + 2 < f.size(); ++i) {
    EXPECT_EQ(bytes(add(f[i], add(f[i + 1], f[i + 2]))), bytes(add(add(f[i], f[i + 1]), f[i + 2])));
  }
  EXPECT_EQ(bytes(add(add(f[0], f[1]), add(add(f[2], f[3]), add(f[4], f[5])))),
            bytes(add(f[5], add(add(f[3], f[1]), add(f[0], add(f[4], f[2]))))));
}

TEST_F(MergeSaliency, SubtractionUndoesAddition) {
  const std::vector<SaliencyFile> f = assorted();
  for (std::size_t i = 0; i < f.size(); ++i) {
    for (std::size_t j = 0; j < f.size(); ++j) {
      if (i == j) continue;
      EXPECT_EQ(bytes(subtract(add(f[i], f[j]), f[j])), bytes(f[i])) << i << " and " << j;
    }
  }
  const SaliencyFile sum = sum_of(f, {0, 1, 3, 4, 5});
  EXPECT_EQ(bytes(subtract(subtract(sum, f[3]), f[0])), bytes(subtract(sum, add(f[0], f[3]))));
  EXPECT_EQ(bytes(subtract(sum, add(f[1], f[3]))), bytes(sum_of(f, {0, 4, 5})));
}

TEST_F(MergeSaliency, OutputsAndGramAreAddedToo) {
  const SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 12));
  const SaliencyFile sum = add(a, b);
  for (std::size_t i = 0; i < sum.saliency.outputs.size(); ++i) {
    EXPECT_EQ(sum.saliency.outputs[i], a.saliency.outputs[i] + b.saliency.outputs[i]);
  }
  for (std::int64_t j = 0; j < kExperts; ++j) {
    const double expected = a.saliency.gram_value(1, 0, j) + b.saliency.gram_value(1, 0, j);
    EXPECT_NEAR(sum.saliency.gram_value(1, 0, j), expected, 1e-12 * std::abs(expected));
  }
}

TEST_F(MergeSaliency, SquaresOfInputsAreAddedToo) {
  const SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 12));
  const SaliencyFile sum = add(a, b);
  for (const InputKind kind : kInputKinds) {
    const Imatrix::Table &one = a.saliency.imatrix.at(kind), &other = b.saliency.imatrix.at(kind),
                         &both = sum.saliency.imatrix.at(kind);
    ASSERT_EQ(both.sums.size(), one.sums.size());
    const auto row = static_cast<std::size_t>(kSquareDigits * both.width);
    for (std::size_t at = 0; at < both.sums.size(); at += row) {
      const auto value = [&](const Imatrix::Table& table, std::int64_t channel) {
        return square_sum(std::span(table.sums).subspan(at, row), channel);
      };
      for (std::int64_t channel = 0; channel < both.width; ++channel) {
        EXPECT_DOUBLE_EQ(value(both, channel), value(one, channel) + value(other, channel)) << name_of(kind);
      }
    }
  }
}

TEST_F(MergeSaliency, WhatNotAllHoldIsLeftOutInAnyOrder) {
  const SaliencyFile a = random_file(1, part('a', 0, 12));
  const SaliencyFile bare = bare_of(random_file(3, part('c', 0, 12)));
  SaliencyFile no_gram = random_file(2, part('b', 0, 12));
  no_gram.saliency.gram.clear();
  SaliencyFile no_squares = random_file(4, part('d', 0, 12));
  no_squares.saliency.imatrix = {};
  EXPECT_EQ(add(a, no_gram).info.collected, (Collected{.gram = false, .outputs = true, .imatrix = true}));
  EXPECT_EQ(add(a, no_squares).info.collected, (Collected{.gram = true, .outputs = true, .imatrix = false}));
  EXPECT_EQ(bytes(add(a, no_squares)), bytes(add(no_squares, a)));
  EXPECT_EQ(bytes(add(a, no_gram)), bytes(add(no_gram, a)));
  EXPECT_EQ(add(no_gram, bare).info.collected, Collected());
  EXPECT_EQ(bytes(add(add(a, no_gram), bare)), bytes(add(bare, add(no_gram, a))));
  EXPECT_EQ(subtract(add(a, no_gram), bare_of(no_gram)).info.collected, Collected());
}

TEST_F(MergeSaliency, OutputsOfAnotherWidthAreRefused) {
  const SaliencyFile a = random_file(1, part('a', 0, 12));
  SaliencyFile wide = random_file(2, part('b', 0, 12));
  wide.saliency.outputs.clear();
  add_output_sums(wide.saliency, 2, 5);
  expect_error(ExitCode::bad_input, {"5 wide", "4"}, [&] { add(a, wide); });
}

TEST_F(MergeSaliency, SquaresOfAnotherWidthAreRefused) {
  const SaliencyFile a = random_file(1, part('a', 0, 12));
  SaliencyFile wide = random_file(2, part('b', 0, 12));
  add_input_sums(wide.saliency, 2, {3, 6, 3, 2});
  expect_error(ExitCode::bad_input, {"'output'", "6 wide", "5"}, [&] { add(a, wide); });
}

TEST_F(MergeSaliency, SquaresMayNotLeaveTheirRange) {
  SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 12));
  a.saliency.imatrix.at(InputKind::attention).sums[6 + 3] = kSquareSumEnd - 1;  // layer 1, high digit of channel 0
  b.saliency.imatrix.at(InputKind::attention).sums[6 + 3] = 1;
  expect_error(ExitCode::numerics, {"layer 1", "'attention'"}, [&] { add(a, b); });
  a.saliency.imatrix.at(InputKind::attention).sums[6 + 3] = 0;
  SaliencyFile less = a;
  less.saliency.imatrix.at(InputKind::attention).sums[6 + 3] = kSquareSumEnd / 2;  // more than both of the sum
  expect_error(ExitCode::numerics, {"layer 1", "'attention'", "negative"},
               [&] { subtract(add(a, random_file(2, part('b', 0, 12))), less); });
}

TEST_F(MergeSaliency, OutputsMayNotLeaveTheirRange) {
  SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 12));
  for (SaliencyFile* file : {&a, &b}) {
    for (float& largest : file->saliency.max_abs) largest = largest > 0 ? 0x1p25f : 0;  // 84 slots per layer and file
  }
  expect_error(ExitCode::numerics, {"layer 0", "out of range"}, [&] { add(a, b); });
}

TEST_F(MergeSaliency, SumsAreTheSums) {
  const SaliencyFile a = random_file(1, part('a', 0, 12, {"x"})), b = random_file(2, part('b', 0, 12, {"w", "x"}));
  const SaliencyFile sum = add(a, b);
  EXPECT_EQ(sum.info.domains, (std::vector<std::string>{"w", "x"}));
  EXPECT_EQ(sum.info.samples, 24);
  EXPECT_EQ(sum.info.tokens, 168);
  ASSERT_EQ(sum.saliency.groups, 4);
  __extension__ using Wide = unsigned __int128;
  const auto value = [](std::span<const std::int64_t> d) {
    return (((Wide(d[3]) << 32) + Wide(d[2])) << 64) + (Wide(d[1]) << 32) + Wide(d[0]);
  };
  for (std::int64_t half = 0; half < 2; ++half) {
    for (std::int64_t l = 0; l < kLayers; ++l) {
      for (std::int64_t e = 0; e < kExperts; ++e) {
        EXPECT_EQ(sum.saliency.count(2 + half, l, e), a.saliency.count(half, l, e) + b.saliency.count(2 + half, l, e));
        EXPECT_EQ(sum.saliency.count(half, l, e), b.saliency.count(half, l, e));
        for (const FieldInfo& field : kFields) {
          EXPECT_TRUE(value(sum.saliency.digits(field.field, 2 + half, l, e)) ==
                      value(a.saliency.digits(field.field, half, l, e)) +
                          value(b.saliency.digits(field.field, 2 + half, l, e)));
        }
        const auto at = [&](const SaliencyFile& f, std::int64_t group) {
          return f.saliency.max_abs[static_cast<std::size_t>(f.saliency.index(group, l, e))];
        };
        EXPECT_EQ(at(sum, 2 + half), std::max(at(a, half), at(b, 2 + half)));
      }
    }
  }
}

TEST_F(MergeSaliency, AllSharesOfAFileAreTheFile) {
  const SaliencyFile first = random_file(1, part('a', 0, 3)), second = random_file(2, part('a', 3, 4)),
                     third = random_file(3, part('a', 4, 12));
  const SaliencyFile whole = add(add(third, first), second);
  EXPECT_EQ(whole.info.calibration_digest, std::string(32, 'a'));
  EXPECT_EQ(whole.info.samples, 12);
  EXPECT_TRUE(whole.info.parts.empty());
  bytes(whole);
  EXPECT_FALSE(Hdf5Reader(directory_ / "s.h5").has("/parts"));
  expect_error(ExitCode::bad_input, {"samples 3 to 3", "only as all 12 samples", "merge the parts"},
               [&] { subtract(whole, second); });
  // What came of shares can be taken out whole.
  const SaliencyFile other = random_file(4, part('b', 0, 12));
  EXPECT_EQ(bytes(subtract(add(whole, other), whole)), bytes(other));
}

TEST_F(MergeSaliency, RefusesTheSameSamplesTwice) {
  const SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('a', 4, 8)),
                     c = random_file(3, part('a', 7, 9)), other = random_file(4, part('b', 0, 12));
  expect_error(ExitCode::bad_input, {"calibration aaaa"}, [&] { add(a, a); });
  expect_error(ExitCode::bad_input, {"samples"}, [&] { add(a, b); });
  expect_error(ExitCode::bad_input, {"samples 7 to 8 of the 12"}, [&] { add(add(b, other), c); });
  expect_error(ExitCode::bad_input, {"calibration aaaa"},
               [&] { add(add(a, other), add(a, random_file(5, part('c', 0, 12)))); });
}

TEST_F(MergeSaliency, RefusesAnotherKind) {
  const SaliencyFile a = random_file(1, part('a', 0, 12));
  const auto refused = [&](const char* what, const std::function<void(SaliencyFile&)>& change) {
    SaliencyFile b = random_file(2, part('b', 0, 12));
    change(b);
    expect_error(ExitCode::bad_input, {what}, [&] { add(a, b); });
    expect_error(ExitCode::bad_input, {what}, [&] { subtract(a, b); });
  };
  refused("model type", [](SaliencyFile& f) { f.info.model_type = "other"; });
  refused("model digest", [](SaliencyFile& f) { f.info.model_digest = std::string(64, 'x'); });
  refused("plan is pppp", [](SaliencyFile& f) { f.info.plan_digest = "pppp"; });
  refused("compute type is bf16", [](SaliencyFile& f) { f.info.compute = "bf16"; });
  refused("numerics id", [](SaliencyFile& f) { f.info.numerics_id = "other"; });
  refused("block size is 65", [](SaliencyFile& f) { f.info.block_tokens = 65; });
  refused("top_k", [](SaliencyFile& f) { f.info.top_k = 3; });
  refused("layers", [](SaliencyFile& f) { f.saliency = Saliency(2, kLayers + 1, kExperts); });
  refused("experts", [](SaliencyFile& f) { f.saliency = Saliency(2, kLayers, kExperts + 1); });
}

TEST_F(MergeSaliency, RefusesToSubtractWhatIsNotThere) {
  const SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 6));
  const SaliencyFile sum = add(a, b);
  const auto refused = [&](const std::vector<std::string>& words, const SaliencyFile& less) {
    expect_error(ExitCode::bad_input, words, [&] { subtract(sum, less); });
  };
  refused({"calibration cccc", "no part"}, random_file(3, part('c', 0, 12)));
  refused({"samples 0 to 6", "no part"}, random_file(3, part('b', 0, 7)));
  refused({"calibration cccc", "no part"}, random_file(3, part('c', 0, 12, {"strange"})));
  refused({"other values"}, random_file(3, part('b', 0, 6)));
  refused({"nothing would be left"}, sum);
  SaliencyFile more = b;  // the same magnitudes, but other sums
  const auto used = std::ranges::find_if(more.saliency.sums, [](std::int64_t value) { return value != 0; });
  *used += 1000;
  refused({"layer 0, expert 0", "larger"}, more);
  *used -= 1001;
  refused({"layer 0", "add up"}, more);
}

TEST_F(MergeSaliency, RefusesSumsOutOfRange) {
  SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 12));
  ASSERT_GT(a.saliency.count(0, 1, 2), 0);
  a.saliency.digits(Field::norm_sq, 0, 1, 2)[3] = (std::int64_t{1} << 31) - 1;
  b.saliency.digits(Field::norm_sq, 0, 1, 2)[3] = 1;
  expect_error(ExitCode::numerics, {"layer 1, expert 2", "norm_sq"}, [&] { add(a, b); });
  b = random_file(2, part('b', 0, 12));
  a = random_file(1, part('a', 0, 12));
  a.info.tokens = std::numeric_limits<std::int64_t>::max() - 5;
  expect_error(ExitCode::bad_input, {"tokens"}, [&] { add(a, b); });
}

/// Borrows go through all digits.
TEST_F(MergeSaliency, CarriesAndBorrows) {
  SaliencyFile a = random_file(1, part('a', 0, 12)), b = random_file(2, part('b', 0, 12));
  std::ranges::copy(Digits{0xffffffff, 0xffffffff, 0xffffffff, 5}, a.saliency.digits(Field::norm, 0, 1, 2).begin());
  std::ranges::copy(Digits{1, 0, 0, 0}, b.saliency.digits(Field::norm, 0, 1, 2).begin());
  const SaliencyFile sum = add(a, b);
  const auto digits = sum.saliency.digits(Field::norm, 0, 1, 2);
  EXPECT_EQ(Digits({digits[0], digits[1], digits[2], digits[3]}), (Digits{0, 0, 0, 6}));
  EXPECT_EQ(bytes(subtract(sum, b)), bytes(a));
}

/// Every byte of a merged file's tables, damaged: never a crash, and what the parts say is never taken when it is
/// wrong.
TEST_F(MergeSaliency, DamagedPartsAreRefused) {
  const SaliencyFile sum = sum_of(assorted(), {0, 1, 3});
  bytes(sum);
  const auto spoiled = [&](const char* word, const std::function<void(SaliencyFile&)>& spoil) {
    SaliencyFile file = sum;
    spoil(file);
    write_saliency(directory_ / "s.h5", file);
    expect_error(ExitCode::bad_input, {"/parts", word}, [&] { read_saliency(directory_ / "s.h5"); });
  };
  spoiled("follow", [](SaliencyFile& f) { f.info.parts[0].digest[5] = 'x'; });
  spoiled("follow", [](SaliencyFile& f) { f.info.parts[0].file_samples = 13; });
  spoiled("follow", [](SaliencyFile& f) { f.info.parts[0].tokens += 1; });
  spoiled("follow", [](SaliencyFile& f) { f.info.samples += 1; });
  spoiled("follow", [](SaliencyFile& f) { std::swap(f.info.domains[0], f.info.domains[1]); });
  spoiled("order", [](SaliencyFile& f) { std::swap(f.info.parts[0], f.info.parts[1]); });
  spoiled("overlap", [](SaliencyFile& f) {
    f.info.parts[1] = f.info.parts[0];
    f.info.parts[1].first = 1;
  });
  spoiled("samples", [](SaliencyFile& f) { f.info.parts[0].first = -1; });
  spoiled("samples", [](SaliencyFile& f) { f.info.parts[0].last = 99; });
  spoiled("too many", [](SaliencyFile& f) {
    for (CalibrationPart& p : f.info.parts) p.tokens = std::numeric_limits<std::int64_t>::max() / 2;
  });
  spoiled("largest", [](SaliencyFile& f) { f.part_max_abs[0][0] = 1e9f; });
  spoiled("not a number", [](SaliencyFile& f) { f.part_max_abs[0][0] = std::numeric_limits<float>::quiet_NaN(); });

  const std::string good = bytes(sum);
  for (std::size_t i = 0; i < good.size(); i += 61) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
    write_text(directory_ / "s.h5", damaged);
    try {
      read_saliency(directory_ / "s.h5");
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ExitCode::bad_input || error.code() == ExitCode::io) << error.what();
    }
  }
}

}  // namespace
}  // namespace reap
