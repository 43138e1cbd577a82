#include "driver/saliency_file.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <functional>
#include <limits>

#include "driver/expect_error.hpp"
#include "driver/hdf5.hpp"
#include "driver/input_sums.hpp"
#include "driver/output_sums.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// 1 domain, 2 layers, 3 experts, 4 tokens of top-2: expert 2 of layer 1 is never chosen.
constexpr std::int64_t kGroups = 2, kLayers = 2, kExperts = 3, kTokens = 4, kTopK = 2;
constexpr std::int64_t kCounts[kGroups][kLayers][kExperts] = {{{2, 1, 1}, {2, 2, 0}}, {{1, 1, 2}, {2, 2, 0}}};

SaliencyInfo small_info() {
  return {"minimax_m2", std::string(64, 'a'), std::string(32, 'b'), "fp32", "cpu test", 4096, 3, kTokens, kTopK,
          {"all"}};
}

Saliency small_table() {
  Saliency s(kGroups, kLayers, kExperts);
  for (std::int64_t g = 0; g < kGroups; ++g) {
    for (std::int64_t l = 0; l < kLayers; ++l) {
      for (std::int64_t e = 0; e < kExperts; ++e) {
        s.count(g, l, e) = kCounts[g][l][e];
        if (kCounts[g][l][e] == 0) continue;
        const auto value = static_cast<double>(100 * g + 10 * l + e) + 0.1;
        for (const FieldInfo& field : kFields) {
          Digits digits;
          EXPECT_TRUE(to_digits(value, field.fraction_bits, digits));
          std::ranges::copy(digits, s.digits(field.field, g, l, e).begin());
        }
        s.max_abs[static_cast<std::size_t>(s.index(g, l, e))] = static_cast<float>(value);
      }
    }
  }
  return s;
}

class SaliencyFileTest : public testing::Test {
 protected:
  fs::path write(const SaliencyInfo& info, const Saliency& table) const {
    write_saliency(directory_ / "s.h5", info, table);
    return directory_ / "s.h5";
  }
  /// Writes what `spoil` makes of a good file; reading it must fail.
  void expect_refused(const std::vector<std::string>& words,
                      const std::function<void(SaliencyInfo&, Saliency&)>& spoil) const {
    SaliencyInfo info = small_info();
    Saliency table = small_table();
    spoil(info, table);
    write(info, table);
    expect_error(ExitCode::bad_input, words, [&] { read_saliency(directory_ / "s.h5"); });
  }

  TemporaryDirectory directory_;
};

TEST_F(SaliencyFileTest, ComesBackAsItWas) {
  const Saliency table = small_table();
  const SaliencyFile back = read_saliency(write(small_info(), table));
  EXPECT_EQ(back.saliency.groups, kGroups);
  EXPECT_EQ(back.saliency.layers, kLayers);
  EXPECT_EQ(back.saliency.experts, kExperts);
  EXPECT_EQ(back.saliency.sums, table.sums);
  EXPECT_EQ(back.saliency.max_abs, table.max_abs);
  const SaliencyInfo info = small_info();
  EXPECT_EQ(back.info.model_type, info.model_type);
  EXPECT_EQ(back.info.model_digest, info.model_digest);
  EXPECT_EQ(back.info.calibration_digest, info.calibration_digest);
  EXPECT_EQ(back.info.compute, info.compute);
  EXPECT_EQ(back.info.numerics_id, info.numerics_id);
  EXPECT_EQ(back.info.block_tokens, info.block_tokens);
  EXPECT_EQ(back.info.samples, info.samples);
  EXPECT_EQ(back.info.tokens, info.tokens);
  EXPECT_EQ(back.info.top_k, info.top_k);
  EXPECT_EQ(back.info.domains, info.domains);
}

TEST_F(SaliencyFileTest, SaysWhoseRoutingItIsOf) {
  SaliencyInfo info = small_info();
  EXPECT_FALSE(Hdf5Reader(write(info, small_table())).has_attribute("plan_digest"));
  info.plan_digest = std::string(64, 'c');
  const SaliencyFile back = read_saliency(write(info, small_table()));
  EXPECT_EQ(back.info.plan_digest, info.plan_digest);
  EXPECT_EQ(difference(back.info, info), "");
  EXPECT_EQ(difference(back.info, small_info()), "the routing of plan " + info.plan_digest);
  EXPECT_EQ(difference(small_info(), info), "the routing of the whole model");
}

TEST_F(SaliencyFileTest, SumsOverOutputsComeBackWhereThereAreSome) {
  EXPECT_EQ(read_saliency(write(small_info(), small_table())).info.collected, Collected());
  EXPECT_FALSE(Hdf5Reader(directory_ / "s.h5").has("/gram"));
  Saliency table = small_table();
  add_output_sums(table, 1, 3);
  const SaliencyFile back = read_saliency(write(small_info(), table));
  EXPECT_EQ(back.info.collected, (Collected{true, true}));
  EXPECT_EQ(back.saliency.gram, table.gram);
  EXPECT_EQ(back.saliency.outputs, table.outputs);
  EXPECT_EQ(back.saliency.hidden, 3);
  const Hdf5Reader file(directory_ / "s.h5");
  EXPECT_EQ(file.extents<std::int64_t>("/gram/digits", 3), (Extents{kLayers, 6, kDigits}));
  EXPECT_EQ(file.extents<std::int64_t>("/outputs/sums", 3), (Extents{kLayers, kExperts, 3}));
}

TEST_F(SaliencyFileTest, RefusesImpossibleSumsOverOutputs) {
  const auto refused = [&](const std::vector<std::string>& words, const std::function<void(Saliency&)>& spoil) {
    expect_refused(words, [&](SaliencyInfo&, Saliency& table) {
      add_output_sums(table, 1, 3);
      spoil(table);
    });
  };
  const auto digit = [](Saliency& table, std::int64_t l, std::int64_t i, std::int64_t j, std::int64_t d) {
    return table.gram.begin() + table.gram_index(l, i, j) + d;
  };
  refused({"/gram/digits", "entry 0", "canonical"}, [&](Saliency& t) { *digit(t, 0, 0, 0, 1) = -1; });
  refused({"/gram/digits", "entry 7", "canonical"}, [&](Saliency& t) { *digit(t, 1, 0, 1, 3) = -0x80000001LL; });
  refused({"layer 1, experts 1 and 1", "squares"}, [&](Saliency& t) { *digit(t, 1, 1, 1, 3) = -1; });
  refused({"layer 0, experts 2 and 2", "squares"}, [&](Saliency& t) { *digit(t, 0, 2, 2, 1) += 0x1000000; });
  refused({"layer 0, experts 0 and 2", "at most"}, [&](Saliency& t) { *digit(t, 0, 0, 2, 3) = 1; });
  refused({"layer 1, experts 0 and 2", "at most 0"}, [&](Saliency& t) { *digit(t, 1, 0, 2, 0) = 1; });
  refused({"/outputs/sums", "layer 0, expert 1"}, [&](Saliency& t) { t.outputs[4] = std::int64_t{1} << 50; });
  refused({"/outputs/sums", "layer 1, expert 2"}, [&](Saliency& t) { t.outputs.back() = 1; });
}

TEST_F(SaliencyFileTest, SquaresOfInputsComeBackWhereThereAreSome) {
  Saliency table = small_table();
  add_input_sums(table, 1);
  const SaliencyFile back = read_saliency(write(small_info(), table));
  EXPECT_EQ(back.info.collected, (Collected{.imatrix = true}));
  EXPECT_EQ(back.saliency.imatrix, table.imatrix);
  const Hdf5Reader file(directory_ / "s.h5");
  EXPECT_EQ(file.extents<std::int64_t>("/imatrix/attention", 3), (Extents{kLayers, kSquareDigits, 3}));
  EXPECT_EQ(file.extents<std::int64_t>("/imatrix/output", 3), (Extents{kLayers, kSquareDigits, 5}));
  EXPECT_EQ(file.extents<std::int64_t>("/imatrix/experts", 4), (Extents{kLayers, kExperts, kSquareDigits, 3}));
  EXPECT_EQ(file.extents<std::int64_t>("/imatrix/inner", 4), (Extents{kLayers, kExperts, kSquareDigits, 2}));
}

TEST_F(SaliencyFileTest, RefusesImpossibleSquaresOfInputs) {
  const auto refused = [&](const std::vector<std::string>& words, InputKind kind, std::size_t at, std::int64_t value) {
    expect_refused(words, [&](SaliencyInfo&, Saliency& table) {
      add_input_sums(table, 1);
      table.imatrix.at(kind).sums[at] = value;
    });
  };
  constexpr std::int64_t kDigitEnd = std::int64_t{1} << 32;
  refused({"/imatrix/attention", "layer 0", "canonical"}, InputKind::attention, 0, kDigitEnd);
  refused({"/imatrix/attention", "layer 1", "canonical"}, InputKind::attention, 8, -1);
  refused({"/imatrix/output", "layer 0", "canonical"}, InputKind::output, 5, kSquareSumEnd);
  refused({"/imatrix/experts", "layer 0, expert 2", "canonical"}, InputKind::experts, 2 * 6 + 3, -1);
  refused({"/imatrix/inner", "layer 1, expert 2", "without tokens"}, InputKind::inner, 5 * 4, 1);
  expect_refused({"/imatrix/inner"}, [&](SaliencyInfo&, Saliency& table) {
    add_input_sums(table, 1);
    table.imatrix.at(InputKind::inner) = {};
  });
}

TEST_F(SaliencyFileTest, HasTheDocumentedDatasets) {
  const Hdf5Reader file(write(small_info(), small_table()));
  EXPECT_EQ(file.text("schema"), "reap-saliency-1");
  EXPECT_EQ(file.read<std::int64_t>("/fields/count", {kGroups, kLayers, kExperts})[0], 2);
  const auto digits = file.read<std::int64_t>("/fields/gate/digits", {kGroups, kLayers, kExperts, kDigits});
  EXPECT_EQ(digits[1 * kDigits + 2], 1);  // group 0, layer 0, expert 1: 1.1, so 1 in the digit of 2^0
  const auto sums = file.read<double>("/sums/norm_sq", {kLayers, kExperts});
  EXPECT_NEAR(sums[1], 1.1 + 101.1, 1e-6);  // Q95.32
  EXPECT_EQ(file.read<float>("/max_abs", {kGroups, kLayers, kExperts})[1], 1.1f);
}

TEST_F(SaliencyFileTest, EqualTablesGiveEqualBytes) {
  const std::string bytes = read_text(write(small_info(), small_table()));
  EXPECT_EQ(bytes, read_text(write(small_info(), small_table())));
  const SaliencyFile back = read_saliency(directory_ / "s.h5");
  EXPECT_EQ(bytes, read_text(write(back.info, back.saliency)));
}

TEST_F(SaliencyFileTest, RefusesImpossibleTables) {
  using Info = SaliencyInfo;
  expect_refused({"layer 0", "add up to 9", "4 tokens x top_k 2"}, [](Info&, Saliency& s) { ++s.count(0, 0, 0); });
  expect_refused({"layer 0", "add up to 8"}, [](Info& i, Saliency&) { i.tokens = 5; });
  expect_refused({"layer 1", "expert 1", "-2"}, [](Info&, Saliency& s) { s.count(0, 1, 1) = -2; });
  expect_refused({"layer 1", "expert 0"}, [](Info&, Saliency& s) { s.count(0, 1, 0) = std::int64_t{1} << 61; });
  expect_refused({"layer 1", "expert 2"}, [](Info&, Saliency& s) { s.digits(Field::norm, 0, 1, 2)[0] = 1; });
  expect_refused({"expert 2"}, [](Info&, Saliency& s) { s.max_abs[5] = 1; });
  expect_refused({"max_abs nan"}, [](Info&, Saliency& s) { s.max_abs[0] = std::numeric_limits<float>::quiet_NaN(); });
  expect_refused({"max_abs inf"}, [](Info&, Saliency& s) { s.max_abs[0] = std::numeric_limits<float>::infinity(); });
  expect_refused({"/fields/gate/digits", "canonical"},
                 [](Info&, Saliency& s) { s.digits(Field::gate, 0, 0, 0)[0] = std::int64_t{1} << 32; });
  expect_refused({"/fields/norm_sq/digits", "canonical"},
                 [](Info&, Saliency& s) { s.digits(Field::norm_sq, 0, 0, 0)[3] = std::int64_t{1} << 31; });
  expect_refused({"top_k"}, [](Info& i, Saliency&) { i.top_k = 4; });
  expect_refused({"top_k"}, [](Info& i, Saliency&) { i.top_k = 0; });
  expect_refused({"tokens"}, [](Info& i, Saliency&) { i.tokens = -4; });
  expect_refused({"/fields/count", "4 groups"}, [](Info& i, Saliency&) { i.domains = {"a", "b"}; });
}

/// A file of the right attributes whose datasets a test chooses.
TEST_F(SaliencyFileTest, RefusesMissingAndDisagreeingParts) {
  Hdf5Writer file;
  file.attribute("schema", std::string("reap-saliency-1"));
  for (const char* name : {"model_type", "model_digest", "calibration_digest", "compute", "numerics_id"}) {
    file.attribute(name, std::string("x"));
  }
  for (const char* name : {"block_tokens", "samples", "tokens", "top_k"}) file.attribute(name, 1);
  file.attribute("domains", std::vector<std::string>{"all"});
  file.group("/fields");
  file.dataset<std::int64_t>("/fields/count", {2, 1, 1}, std::vector<std::int64_t>{1, 0});
  file.save(directory_ / "s.h5");
  expect_error(ExitCode::bad_input, {"s.h5", "/fields/gate/digits"}, [&] { read_saliency(directory_ / "s.h5"); });

  for (const FieldInfo& field : kFields) {
    file.group(fmt::format("/fields/{}", field.name));
    file.dataset<std::int64_t>(fmt::format("/fields/{}/digits", field.name), {2, 1, 1, 4},
                               std::vector<std::int64_t>{0, 0, 1, 0, 0, 0, 0, 0});
  }
  file.dataset<float>("/max_abs", {2, 1, 1}, std::vector<float>{1, 0});
  file.group("/sums");
  for (const FieldInfo& field : kFields) {
    const double unit = field.fraction_bits == kFractionBits ? 1 : 4294967296.0;
    const double sum = field.field == Field::gate_norm_sq ? 2 * unit : unit;
    file.dataset<double>(fmt::format("/sums/{}", field.name), {1, 1}, std::vector<double>{sum});
  }
  file.save(directory_ / "s.h5");
  expect_error(ExitCode::bad_input, {"/sums/gate_norm_sq", "damaged"}, [&] { read_saliency(directory_ / "s.h5"); });
}

TEST_F(SaliencyFileTest, RefusesOtherFiles) {
  const fs::path data = REAP_TEST_DATA;
  expect_error(ExitCode::bad_input, {"reap-calibration-1"}, [&] { read_saliency(data / "calib_64x512.h5"); });
  expect_error(ExitCode::bad_input, {"schema"}, [&] { read_saliency(data / "hdf5" / "attributes.h5"); });
  expect_error(ExitCode::bad_input, {"absent.h5"}, [&] { read_saliency(directory_ / "absent.h5"); });
}

TEST_F(SaliencyFileTest, FullDiskLeavesNothing) {
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{4096, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error(ExitCode::io, {"s.h5"}, [&] { write(small_info(), small_table()); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, previous);
  EXPECT_EQ(directory_.entries(), 0);
}

TEST_F(SaliencyFileTest, DamagedBytesNeverCrash) {
  const std::string bytes = read_text(write(small_info(), small_table()));
  for (std::size_t i = 0; i < bytes.size(); i += 19) {
    std::string damaged = bytes;
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
