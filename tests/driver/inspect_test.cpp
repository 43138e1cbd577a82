#include "driver/inspect.hpp"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <sstream>

#include "driver/expect_error.hpp"
#include "driver/hdf5.hpp"
#include "driver/plan.hpp"
#include "driver/state_file.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kData = REAP_TEST_DATA;
constexpr std::size_t kTerminal = 100;

void expect_holds(const std::string& text, const std::vector<std::string>& words) {
  for (const std::string& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " is not in\n" << text;
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);  // the path
  while (std::getline(lines, line)) EXPECT_LE(line.size(), kTerminal) << line;
}

/// 2 domains, 2 layers, 3 experts, 2 tokens of top-1, all to expert 1.
SaliencyFile small_saliency() {
  SaliencyFile file{
      {"minimax_m2", std::string(64, 'a'), std::string(32, 'b'), "fp32", "test", 8, 2, 2, 1, {"de", "fr"}},
      Saliency(4, 2, 3)};
  for (const std::int64_t group : {0, 3}) {
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      file.saliency.count(group, layer, 1) = 1;
      Digits digits;
      EXPECT_TRUE(to_digits(2.5, kFractionBits, digits));
      std::ranges::copy(digits, file.saliency.digits(Field::gate_norm, group, layer, 1).begin());
    }
  }
  return file;
}

TEST(Inspect, Model) {
  expect_holds(inspect(kData / "m2-nano-fp8"),
               {"minimax_m2", "32 per layer, top-4", "experts", "F8_E4M3", "pp 4 x ep 1"});
  expect_holds(inspect(kData / "m2-mini-bf16"), {"and 1 of MTP", "MTP", "BF16"});
}

TEST(Inspect, ParametersAddUp) {  // 6 experts of top-2: 3 matrices of 160 x 136 in each of 2 layers
  const std::string text = inspect(kData / "m2-mini-bf16");
  expect_holds(text, {fmt::format("{}", 2 * 6 * 3 * 160 * 136)});
}

/// 4 blocks of 1 token, 2 layers: one is done, one inside the model.
TEST(Inspect, State) {
  const TemporaryDirectory folder;
  SaliencyInfo info{"minimax_m2", std::string(64, 'a'), std::string(32, 'b'), "bf16", "test", 1, 4, 4, 1, {"all"}};
  State state{info, 5, {1, 1, 1, 1}, {Saliency(2, 2, 3), {2, 0, 1, 0}}, {{2, 0, 0, 1, std::string(32, 'c')}}};
  state.snapshot.saliency.count(0, 0, 1) = 2;
  state.snapshot.saliency.count(0, 1, 1) = 1;
  const fs::path newest = folder / generation_name(12);
  for (const std::int64_t generation : {11, 12}) {
    const fs::path path = folder / generation_name(generation);
    fs::create_directory(path);
    write_state(path, state);
    write_text(path / hidden_file_name(0), std::string(20, 'x'));
  }
  expect_holds(inspect(folder / ""), {"generation-000012", "37.5 % of the pass",
                                      "1 done, 1 inside the model, 2 not begun", "20 B in 1 files", "bf16", "top-1"});
  write_text(newest / "state.h5", "x");
  EXPECT_NE(inspect(folder / "").find("not usable"), std::string::npos);
  expect_error(ExitCode::bad_input, {"part of a state"}, [&] { inspect(folder / "generation-000011/state.h5"); });
}

TEST(Inspect, Calibration) {
  expect_holds(inspect(kData / "calib_64x512.h5"), {"64", "32768", "python", "512 at least", "512 at most"});
}

TEST(Inspect, Saliency) {
  const TemporaryDirectory directory;
  const SaliencyFile file = small_saliency();
  write_saliency(directory / "s.h5", file.info, file.saliency);
  expect_holds(inspect(directory / "s.h5"), {"minimax_m2", "fp32", "3 in each of 2 layers, top-1", "de", "fr", "2.5"});
}

TEST(Inspect, SaliencySaysHowSureACutIs) {
  const TemporaryDirectory directory;
  const SaliencyFile file = small_saliency();
  write_saliency(directory / "s.h5", file.info, file.saliency);
  expect_holds(inspect(directory / "s.h5"), {"both halves keep", "expected changes",
                                             "fewer than 100 tokens: 6, in 2 of 2 layers", "overlap: least"});
  expect_holds(inspect(directory / "s.h5", {{"reap:0.5"}, {0.5}, 1}), {"reap:0.5", "fewer than 1 tokens: 4"});
  EXPECT_TRUE(inspect_json(directory / "s.h5").starts_with("{\"format\":\"reap-stability\""));
  expect_error(ExitCode::usage, {"--json is for saliency"}, [&] { inspect_json(kData / "m2-nano-fp8"); });
}

/// A calibration file of two tokens with a text for `source`.
fs::path calibration_from(const TemporaryDirectory& directory, const std::string& source) {
  Hdf5Writer file;
  file.attribute("schema", std::string("reap-calibration-1"));
  file.attribute("seed", 42);
  file.attribute("source", source);
  file.dataset<std::int32_t>("/tokens", {2}, std::vector<std::int32_t>{1, 2});
  file.dataset<std::int64_t>("/offsets", {2}, std::vector<std::int64_t>{0, 2});
  file.save(directory / "c.h5");
  return directory / "c.h5";
}

TEST(Inspect, CalibrationTellsWhereItIsFrom) {
  const TemporaryDirectory directory;
  const std::string source = R"({"made_by": {"reap-tools": "0.1.0", "jinja2": "3.1"}, "recipe": "evol-64",
    "settings": {"seed": 42, "samples": 64, "long": "truncate", "date": null, "pack": false},
    "template": {"file": "chat_template.jinja", "sha256": "abc"},
    "sources": [{"domain": "code", "dataset": "org/evol", "asked": "64", "rows": 100, "rows_read": 70, "samples": 64,
                 "tokens": 32768, "left_out": {"duplicate": 6}, "files": [{"name": "a.jsonl"}, {"name": "b.jsonl"}]},
                {"domain": "prose", "dataset": null, "files": [{"name": "books.txt"}]}]})";
  expect_holds(inspect(calibration_from(directory, source)),
               {"reap-tools 0.1.0, jinja2 3.1", "evol-64", "samples 64", "long truncate", "chat_template.jinja", "abc",
                "org/evol, 2 files", "asked for 64; 70 of 100 rows read, 64 samples, 32768 tokens", "duplicate 6",
                "books.txt", "seed                42"});
  expect_holds(inspect(kData / "calib_64x512.h5"), {"split calib; 64 packed sequences of 512 tokens"});
}

TEST(Inspect, ProvenanceOfAnyKindIsShownOrLeftOut) {
  const TemporaryDirectory directory;
  for (const char* source : {"{", "{}", R"({"made_by": 7, "settings": [], "template": [1], "sources": {"a": 1}})",
                             R"({"sources": [1, null, {"files": 3, "left_out": [2]}], "recipe": {}})"}) {
    expect_holds(inspect(calibration_from(directory, source)), {"calibration", "digest"});
  }
}

TEST(Inspect, Plan) {
  const TemporaryDirectory directory;
  write_plan(directory / "plan.json", make_plan(small_saliency(), {.ratio = 0.5}));
  expect_holds(inspect(directory / "plan.json"), {"minimax_m2", "2 of 3 experts"});
}

TEST(Inspect, RefusesOtherFiles) {
  const TemporaryDirectory directory;
  expect_error(ExitCode::bad_input, {"absent"}, [&] { inspect(directory / "absent"); });
  write_text(directory / "f", "some text");
  expect_error(ExitCode::bad_input, {"neither"}, [&] { inspect(directory / "f"); });
  write_text(directory / "empty", "");
  expect_error(ExitCode::bad_input, {"neither"}, [&] { inspect(directory / "empty"); });
  expect_error(ExitCode::bad_input, {"config.json"}, [&] { inspect(kData / "licences"); });
  Hdf5Writer other;
  other.attribute("schema", std::string("evil\x1b[2J"));
  other.save(directory / "other.h5");
  expect_error(ExitCode::bad_input, {"schema"}, [&] { inspect(directory / "other.h5"); });
}

TEST(Inspect, NeverObeysTheFile) {  // a terminal would clear itself
  const TemporaryDirectory directory;
  SaliencyFile file = small_saliency();
  file.info.domains = {"a\x1b[2J", "b"};
  write_saliency(directory / "s.h5", file.info, file.saliency);
  EXPECT_EQ(inspect(directory / "s.h5").find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace reap
