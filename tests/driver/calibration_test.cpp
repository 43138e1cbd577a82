#include "driver/calibration.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "driver/expect_error.hpp"
#include "driver/hdf5.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kData = REAP_TEST_DATA;
constexpr std::int64_t kVocab = 100;

/// A small calibration file; a test spoils one part of it.
struct Parts {
  std::optional<std::string> schema = "reap-calibration-1";
  std::vector<std::int32_t> tokens{5, 6, 7, 8, 9, 10};
  std::vector<std::int64_t> offsets{0, 2, 3, 6};
  std::optional<std::vector<std::uint8_t>> domain = std::vector<std::uint8_t>{0, 1, 0};
  std::optional<std::vector<std::string>> names = std::vector<std::string>{"prose", "code"};
};

class CalibrationFile : public testing::Test {
 protected:
  fs::path write(const Parts& parts) const {
    const auto extents = [](const auto& values) { return Extents{static_cast<std::int64_t>(values.size())}; };
    Hdf5Writer file;
    if (parts.schema) file.attribute("schema", *parts.schema);
    if (parts.names) file.attribute("domains", *parts.names);
    file.dataset<std::int32_t>("/tokens", extents(parts.tokens), parts.tokens);
    file.dataset<std::int64_t>("/offsets", extents(parts.offsets), parts.offsets);
    if (parts.domain) file.dataset<std::uint8_t>("/domain", extents(*parts.domain), *parts.domain);
    file.save(directory_ / "c.h5");
    return directory_ / "c.h5";
  }

  void expect_refused(const Parts& parts, std::vector<std::string> words) const {
    words.emplace_back("c.h5");
    expect_error(ExitCode::bad_input, words, [&] { open_calibration(write(parts), kVocab); });
  }

  std::string digest(const Parts& parts) const { return calibration_digest(open_calibration(write(parts), kVocab)); }

  TemporaryDirectory directory_;
};

TEST_F(CalibrationFile, HoldsSamplesAndDomains) {
  const Calibration c = open_calibration(write({}), kVocab);
  EXPECT_EQ(c.samples.offsets, (std::vector<std::int64_t>{0, 2, 3, 6}));
  EXPECT_EQ(c.samples.domain, (std::vector<std::uint8_t>{0, 1, 0}));
  EXPECT_EQ(c.samples.domains, 2);
  EXPECT_EQ(c.samples.groups(), 4);
  EXPECT_EQ(c.domain_names, (std::vector<std::string>{"prose", "code"}));
  EXPECT_EQ(c.tokenizer_sha256, "");
  EXPECT_EQ(c.samples.read_tokens(1, 4), (std::vector<std::int32_t>{6, 7, 8}));
  EXPECT_TRUE(c.samples.read_tokens(6, 6).empty());
}

TEST_F(CalibrationFile, DomainsAreOptional) {
  const Calibration bare = open_calibration(write({.domain = {}, .names = {}}), kVocab);
  EXPECT_EQ(bare.samples.domain, (std::vector<std::uint8_t>{0, 0, 0}));
  EXPECT_EQ(bare.domain_names, std::vector<std::string>{"0"});
  EXPECT_EQ(open_calibration(write({.domain = {}, .names = {{"all"}}}), kVocab).domain_names,
            std::vector<std::string>{"all"});
  EXPECT_EQ(open_calibration(write({.names = {}}), kVocab).domain_names, (std::vector<std::string>{"0", "1"}));
}

TEST_F(CalibrationFile, RefusesWhatItIsNot) {
  expect_refused({.schema = {}}, {"schema"});
  expect_refused({.schema = "reap-saliency-1"}, {"reap-saliency-1", "reap-calibration-1"});
  expect_refused({.offsets = {}}, {"no samples"});
  expect_refused({.tokens = {}, .offsets = {0}, .domain = {{}}}, {"no samples"});
  expect_refused({.offsets = {1, 2, 3, 6}}, {"starts at 1"});
  expect_refused({.offsets = {0, 2, 2, 6}}, {"sample 1 is empty"});
  expect_refused({.offsets = {0, 4, 3, 6}}, {"falls from 4 to 3", "sample 1"});
  expect_refused({.offsets = {0, 2, 3, 5}}, {"ends at 5", "6 tokens"});
  expect_refused({.offsets = {0, 2, 3, 7}}, {"ends at 7"});
  expect_refused({.offsets = {0, std::numeric_limits<std::int64_t>::min(), 3, 6}}, {"falls"});
  expect_refused({.domain = {{0, 1}}}, {"/domain", "[2]", "[3]"});
  expect_refused({.domain = {{0, 2, 0}}}, {"sample 1", "domain 2"});
  expect_refused({.names = {{"same", "same"}}}, {"same name"});
  expect_refused({.domain = {}}, {"/domain"});
}

TEST_F(CalibrationFile, NamesTheTokenThatTheModelLacks) {
  const Calibration high = open_calibration(write({.tokens = {5, 6, 7, 8, 100, 10}}), kVocab);
  EXPECT_EQ(high.samples.read_tokens(0, 4).size(), 4u);
  expect_error(ExitCode::bad_input, {"c.h5", "sample 2", "position 1", "100"}, [&] { high.samples.read_tokens(3, 6); });
  const Calibration negative = open_calibration(write({.tokens = {5, 6, -1, 8, 9, 10}}), kVocab);
  expect_error(ExitCode::bad_input, {"sample 1", "position 0", "-1"}, [&] { calibration_digest(negative); });
}

TEST_F(CalibrationFile, DigestIsOfTheContent) {
  const std::string base = digest({});
  EXPECT_EQ(base.size(), 32u);
  EXPECT_EQ(base, digest({}));
  EXPECT_NE(base, digest({.tokens = {5, 6, 7, 8, 9, 11}}));
  EXPECT_NE(base, digest({.offsets = {0, 2, 4, 6}}));
  EXPECT_NE(base, digest({.domain = {{0, 1, 1}}}));
  EXPECT_NE(base, digest({.names = {{"prose", "cod"}}}));
  EXPECT_NE(base, digest({.names = {{"prosec", "ode"}}}));
}

TEST_F(CalibrationFile, LayoutInTheFileDoesNotMatter) {
  const Calibration chunked = open_calibration(kData / "hdf5" / "calibration_chunked.h5", kVocab);
  EXPECT_EQ(chunked.tokenizer_sha256, "abc");
  EXPECT_EQ(chunked.domain_names, (std::vector<std::string>{"short", "a longer one"}));
  const std::vector<std::int32_t> tokens{0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33};
  EXPECT_EQ(chunked.samples.read_tokens(0, 12), tokens);
  EXPECT_EQ(
      calibration_digest(chunked),
      digest(
          {.tokens = tokens, .offsets = {0, 5, 6, 12}, .domain = {{0, 1, 1}}, .names = {{"short", "a longer one"}}}));
  const Calibration plain = open_calibration(kData / "hdf5" / "calibration_plain.h5", kVocab);
  EXPECT_EQ(calibration_digest(plain), digest({.tokens = tokens, .offsets = {0, 5, 6, 12}, .domain = {}, .names = {}}));
}

TEST_F(CalibrationFile, BundledFilesAreWhole) {
  const Calibration c = open_calibration(kData / "calib_64x512.h5", std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(c.samples.samples(), 64);
  EXPECT_EQ(c.samples.tokens(), 64 * 512);
  EXPECT_EQ(c.domain_names, (std::vector<std::string>{"python", "cpp", "prose", "tools", "maths"}));
  EXPECT_EQ(c.tokenizer_sha256.size(), 64u);
  EXPECT_EQ(calibration_digest(c).size(), 32u);
  EXPECT_EQ(open_calibration(kData / "heldout.h5", 1 << 30).samples.samples(), 135);
  EXPECT_EQ(open_calibration(kData / "random_v211.h5", 211).samples.tokens(), 766);
}

}  // namespace
}  // namespace reap
