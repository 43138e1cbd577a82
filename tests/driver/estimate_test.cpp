#include "driver/estimate.hpp"

#include <gtest/gtest.h>

#include "driver/calibration.hpp"
#include "driver/expect_error.hpp"
#include "driver/pass_setup.hpp"
#include "driver/temporary_directory.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kData = REAP_TEST_DATA;

Options nano_options() {
  Options options;
  options.command = "estimate";
  options.model = kData / "m2-nano-fp8";
  options.calibration = kData / "calib_64x512.h5";
  options.block_tokens = 1024;
  options.threads = 1;
  options.memory_budget = 1'000'000'000;
  return options;
}

Estimate all_run(const Options& options) {
  const Comm world(MPI_COMM_WORLD);
  Log log("", world.rank());
  return all_estimate(world, options, log);
}

TEST(Estimate, JsonHoldsWhatWasCounted) {
  Options options = nano_options();
  options.ranks = 4;
  options.ratios = {0.25};
  options.output = fs::temp_directory_path() / "not" / "there" / "yet";
  const Estimate estimate = all_run(options);
  const Json json = parse_json(estimate_json(estimate), "estimate");
  EXPECT_EQ(json["tokens"], 32'768);
  EXPECT_EQ(json["blocks"], 32);
  EXPECT_EQ(json["ranks"], 4);
  EXPECT_EQ(json["whole"]["tensors"], 827);
  EXPECT_TRUE(json["from_headers"]);
  EXPECT_EQ(json["memory_bytes"], 1'000'000'000);
  EXPECT_GT(json["free_bytes"], 0);
  ASSERT_EQ(json["grids"].size(), 12U) << "6 grids, 2 ways to hold weights";
  const Json& chosen = json["grids"][json["chosen"].get<std::size_t>()];
  EXPECT_EQ(chosen["weights"], "resident");
  EXPECT_TRUE(chosen["fits"]);
  for (const Json& grid : json["grids"]) {
    std::int64_t bytes = 0;
    double seconds = 0;
    for (const auto& [key, value] : grid["bytes"].items()) bytes += key == "total" ? 0 : value.get<std::int64_t>();
    for (const auto& [key, value] : grid["seconds"].items()) seconds += key == "total" ? 0 : value.get<double>();
    EXPECT_EQ(bytes, grid["bytes"]["total"]);
    EXPECT_NEAR(seconds, grid["seconds"]["total"].get<double>(), 1e-9);
    EXPECT_EQ(grid["pp"].get<int>() * grid["ep"].get<int>() * grid["dp"].get<int>(), 4);
  }
  ASSERT_EQ(json["outputs"].size(), 1U);
  EXPECT_EQ(json["outputs"][0]["kept"], 24);
}

TEST(Estimate, TableNamesTheChoice) {
  Options options = nano_options();
  const std::string text = estimate_table(all_run(options));
  for (const char* word : {"4.4 M parameters", "32768 tokens in 32 blocks", "Bytes per rank", "Time of the calibration",
                           "Chosen: pp=", "resident", "kept"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << " is not in\n" << text;
  }
  options.memory_budget = 100'000;
  const std::string none = estimate_table(all_run(options));
  EXPECT_NE(none.find("Nothing fits"), std::string::npos) << none;
  EXPECT_NE(none.find("a --memory-budget of"), std::string::npos) << none;
}

TEST(Estimate, ChoosesAsRunDoes) {
  const Comm world(MPI_COMM_WORLD);
  Log log("", world.rank());
  for (const std::int64_t budget : {1'000'000'000, 14'000'000}) {
    Options options = nano_options();
    options.memory_budget = budget;
    const Estimate estimate = all_run(options);
    const Checkpoint checkpoint(options.model);
    const Model model = describe_model(checkpoint);
    const Samples samples = open_calibration(options.calibration, model.vocab).samples;
    const PassSetup setup = all_set_up(world, options, samples, all_find_resources(world, log));
    const Candidate run = choose_candidate(setup.task(model, world.size(), options));
    ASSERT_GE(estimate.chosen, 0) << estimate.why;
    const Candidate& told = estimate.candidates[static_cast<std::size_t>(estimate.chosen)];
    EXPECT_EQ(text_of(run.grid), text_of(told.grid));
    EXPECT_EQ(run.holding.streamed, told.holding.streamed);
    EXPECT_EQ(run.holding.weight_window, told.holding.weight_window);
    EXPECT_EQ(run.holding.wave_rows, told.holding.wave_rows);
  }
}

TEST(Estimate, ProbeReplacesDefaults) {
  const TemporaryDirectory folder;
  Options options = nano_options();
  options.probe = true;
  options.output = folder / "out";
  const Comm world(MPI_COMM_WORLD);
  const Estimate estimate = all_run(options);
  for (const char* key : {"bf16", "layout", "memory-rate", "read", "write"}) {
    EXPECT_EQ(estimate.machine.source.find(key)->second.substr(0, 8), "measured") << key;
    EXPECT_EQ(estimate.machine.source.find(key)->second.find("other machines"), std::string::npos) << key;
  }
  EXPECT_EQ(estimate.machine.source.find("link")->second.starts_with("measured"), world.size() > 1);
  for (const MachineValue& value : machine_values()) {
    EXPECT_EQ(estimate.machine.*value.value > 0, value.key != "memory") << value.key;
  }
  EXPECT_EQ(folder.entries(), 0) << "the probe's file is gone";
}

TEST(Estimate, NeedsAModel) {
  Options options = nano_options();
  options.model = "";
  expect_error(ExitCode::usage, {"--model is missing"}, [&] { all_run(options); });
  options.model = "/nonexistent";
  expect_error(ExitCode::bad_input, {"/nonexistent"}, [&] { all_run(options); });
}

}  // namespace
}  // namespace reap
