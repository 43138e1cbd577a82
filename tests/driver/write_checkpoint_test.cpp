#include "driver/write_checkpoint.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <sstream>
#include <string>

#include "driver/expect_error.hpp"
#include "driver/manifest.hpp"
#include "driver/pruned_models.hpp"
#include "driver/size_limit.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// The parts of a name between its dots.
std::vector<std::string> parts_of(const std::string& name) {
  std::vector<std::string> parts;
  std::istringstream stream(name);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  return parts;
}

/// The rows of the experts in `keep`.
StoredTensor rows_of(const StoredTensor& tensor, const std::vector<std::int32_t>& keep) {
  StoredTensor sliced{tensor.dtype, tensor.shape, ""};
  sliced.shape[0] = static_cast<std::int64_t>(keep.size());
  const std::size_t row = tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]);
  for (const std::int32_t expert : keep) {
    sliced.bytes += tensor.bytes.substr(static_cast<std::size_t>(expert) * row, row);
  }
  return sliced;
}

/// What pruning has to make of the source's tensors, by the tests' own means.
StoredTensors prune(const StoredTensors& source, const Plan& plan, bool keep_mtp) {
  StoredTensors result;
  for (const auto& [name, tensor] : source) {
    std::vector<std::string> parts = parts_of(name);  // model.layers.3.block_sparse_moe.experts.7.w1.weight
    if (parts[1] != "layers") {
      result[name] = tensor;
      continue;
    }
    const std::size_t layer = std::stoul(parts[2]);
    if (layer >= plan.layers.size()) {
      if (keep_mtp) result[name] = tensor;
      continue;
    }
    const std::vector<std::int32_t>& keep = plan.layers[layer].keep;
    if (parts[3] == "block_sparse_moe" && parts[4] == "experts") {
      const auto place = std::find(keep.begin(), keep.end(), std::stoi(parts[5]));
      if (place == keep.end()) continue;
      parts[5] = std::to_string(place - keep.begin());
      result[fmt::format("{}", fmt::join(parts, "."))] = tensor;
    } else if (parts[3] == "block_sparse_moe") {
      result[name] = rows_of(tensor, keep);  // gate.weight, e_score_correction_bias
    } else {
      result[name] = tensor;
    }
  }
  return result;
}

/// Says which tensors differ, not what their bytes are.
void expect_same_tensors(const StoredTensors& found, const StoredTensors& expected) {
  for (const auto& [name, tensor] : expected) {
    const auto entry = found.find(name);
    if (entry == found.end()) {
      ADD_FAILURE() << name << " is missing";
    } else {
      EXPECT_EQ(entry->second.dtype, tensor.dtype) << name;
      EXPECT_EQ(entry->second.shape, tensor.shape) << name;
      EXPECT_TRUE(entry->second.bytes == tensor.bytes) << name << " has other bytes";
    }
  }
  for (const auto& [name, tensor] : found) EXPECT_TRUE(expected.contains(name)) << name << " is surplus";
}

WriteOptions small_files() {
  WriteOptions options;
  options.max_shard_bytes = 150'000;
  return options;
}

class WriteCheckpoint : public testing::Test {
 protected:
  void write(const OpenSource& source, const Plan& plan, const fs::path& output, const WriteOptions& options) const {
    all_write_checkpoint(world_, source.checkpoint, source.model, plan, output, options);
  }

  Comm world_{MPI_COMM_WORLD};
  SharedDirectory directory_{world_};
};

class WriteModel : public WriteCheckpoint, public testing::WithParamInterface<const char*> {};

TEST_P(WriteModel, EveryTensorIsItsSliceOfTheSource) {
  const OpenSource source(test_model(GetParam()));
  const Plan plan = shuffled_plan(source, source.model.router.experts * 3 / 4);
  for (const Mtp mtp : {Mtp::drop, Mtp::keep}) {
    WriteOptions options = small_files();
    options.mtp = mtp;
    const fs::path output = directory_ / (mtp == Mtp::keep ? "kept" : "dropped");
    write(source, plan, output, options);
    expect_same_tensors(read_all_tensors(output),
                        prune(read_all_tensors(test_model(GetParam())), plan, mtp == Mtp::keep));
    EXPECT_EQ(read_text(output / "config.json"), pruned_config(source.checkpoint, source.model, plan, options));
    world_.all_barrier();
  }
}

TEST_P(WriteModel, TheFilesAreTheSameForAnyNumberOfRanks) {
  const OpenSource source(test_model(GetParam()));
  const Plan plan = shuffled_plan(source, source.model.router.experts / 2);
  write(source, plan, directory_ / "all", small_files());
  if (world_.rank() == 0) {
    all_write_checkpoint(Comm(MPI_COMM_SELF), source.checkpoint, source.model, plan, directory_ / "one", small_files());
    const auto one = read_directory(directory_ / "one");
    const auto all = read_directory(directory_ / "all");
    EXPECT_GT(one.size(), 6u);
    for (const auto& [name, bytes] : one) {
      ASSERT_TRUE(all.contains(name)) << name;
      EXPECT_TRUE(all.at(name) == bytes) << name << " differs";
    }
    EXPECT_EQ(all.size(), one.size());
  }
}

TEST_P(WriteModel, NothingDroppedGivesTheSourceBack) {
  const OpenSource source(test_model(GetParam()));
  WriteOptions options;
  options.mtp = Mtp::keep;
  write(source, shuffled_plan(source, source.model.router.experts), directory_ / "output", options);
  expect_same_tensors(read_all_tensors(directory_ / "output"), read_all_tensors(test_model(GetParam())));
  EXPECT_EQ(read_text(directory_ / "output" / "config.json"), source.checkpoint.config_text());
}

INSTANTIATE_TEST_SUITE_P(Models, WriteModel, testing::Values("m2-mini-bf16", "m2-mini-fp8", "m2-nano-fp8"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class WriteMini : public WriteCheckpoint {
 protected:
  OpenSource source_{test_model("m2-mini-fp8")};
  Plan plan_ = shuffled_plan(source_, 4);
};

TEST_F(WriteMini, ManyTinyFiles) {
  WriteOptions options;
  options.max_shard_bytes = 1;  // a file per tensor, and more files than ranks
  write(source_, plan_, directory_ / "output", options);
  expect_same_tensors(read_all_tensors(directory_ / "output"),
                      prune(read_all_tensors(test_model("m2-mini-fp8")), plan_, false));
}

TEST_F(WriteMini, SideFilesAreCopiedButNotWhatThisProgramWrote) {
  if (world_.rank() == 0) {
    fs::copy(test_model("m2-mini-fp8"), directory_ / "source");
    write_text(directory_ / "source" / "tokenizer.json", "{\"a\": 1}");
    write_text(directory_ / "source" / "modeling.py", "");
    write_text(directory_ / "source" / kManifestName, "{}");
    write_text(directory_ / "source" / "run_log.json", "{}");
    fs::create_directory(directory_ / "source" / "figures");
  }
  world_.all_barrier();
  const OpenSource source(directory_ / "source");
  write(source, plan_, directory_ / "output", {});
  const auto files = read_directory(directory_ / "output");
  EXPECT_EQ(files.at("tokenizer.json"), "{\"a\": 1}");
  EXPECT_EQ(files.at("modeling.py"), "");
  EXPECT_EQ(files.at("generation_config.json"), read_text(test_model("m2-mini-fp8") / "generation_config.json"));
  EXPECT_NE(files.at(kManifestName), "{}");
  EXPECT_FALSE(files.contains("run_log.json"));
  EXPECT_FALSE(files.contains("figures"));
}

TEST_F(WriteMini, TheManifestHoldsTheDigestsOfTheFiles) {
  write(source_, plan_, directory_ / "output", small_files());
  const Manifest manifest = parse_manifest(read_text(directory_ / "output" / kManifestName), "manifest");
  EXPECT_EQ(manifest.source_digest, plan_.model_digest);
  EXPECT_EQ(manifest.output_digest, model_digest(Checkpoint(directory_ / "output")));
  EXPECT_EQ(manifest.calibration_digest, plan_.calibration_digest);
  for (const ManifestFile& file : manifest.files) {
    const std::string bytes = read_text(directory_ / "output" / file.name);
    Sha256 sha256;
    sha256.update(std::as_bytes(std::span(bytes)));
    EXPECT_EQ(file.sha256, sha256.hex());
    EXPECT_EQ(file.bytes, bytes.size());
    const StoredTensors tensors = read_tensors(directory_ / "output" / file.name);
    EXPECT_EQ(file.tensors.size(), tensors.size());
    for (const ManifestTensor& tensor : file.tensors) {
      Xxh3 xxh3;
      xxh3.update(std::as_bytes(std::span(tensors.at(tensor.name).bytes)));
      EXPECT_EQ(tensor.xxh3, xxh3.hex()) << tensor.name;
    }
  }
}

TEST_F(WriteMini, ProgressAddsUpToTheBytesWritten) {
  std::int64_t bytes = 0;
  WriteWork work;
  WriteEvents events;
  events.begin = [&](const WriteWork& ahead) { work = ahead; };
  events.progress = [&](std::int64_t more) { bytes += more; };
  all_write_checkpoint(world_, source_.checkpoint, source_.model, plan_, directory_ / "output", small_files(), events);
  EXPECT_EQ(bytes, work.own_bytes);
  EXPECT_EQ(work.kept_files, 0);
  world_.all_sum(std::span(&bytes, 1));
  EXPECT_EQ(bytes, work.bytes);
  std::int64_t expected = 0;
  for (const OutputFile& file : plan_output(source_.checkpoint, source_.model, source_.claims, plan_, small_files())) {
    expected += static_cast<std::int64_t>(file.bytes);
  }
  EXPECT_EQ(bytes, expected);
}

/// Outputs that an interrupted job has left half done.
class Resume : public WriteMini {
 protected:
  /// What one job writes that nothing interrupts.
  std::map<std::string, std::string> undisturbed() {
    write(source_, plan_, directory_ / "whole", small_files());
    return read_directory(directory_ / "whole");
  }

  /// Writes everything and is stopped before the output gets its name.
  void stop_at_the_end() {
    WriteEvents events;
    events.all_check = [](const fs::path&) { throw SharedError(ExitCode::stopped, "stopped"); };
    expect_error(ExitCode::stopped, {"stopped"}, [&] { write_with(events); });
    world_.all_barrier();
    EXPECT_FALSE(fs::exists(directory_ / "output"));
  }

  void write_with(const WriteEvents& events) {
    all_write_checkpoint(world_, source_.checkpoint, source_.model, plan_, directory_ / "output", small_files(),
                         events);
  }

  /// Goes on, on one rank only, which nothing depends on. @return what was kept
  WriteWork go_on(bool trust) {
    WriteWork work;
    world_.all_barrier();
    if (world_.rank() == 0) {
      WriteEvents events;
      events.begin = [&](const WriteWork& ahead) { work = ahead; };
      if (trust) events.all_check = [](const fs::path&) {};
      all_write_checkpoint(Comm(MPI_COMM_SELF), source_.checkpoint, source_.model, plan_, directory_ / "output",
                           small_files(), events);
      EXPECT_FALSE(fs::exists(partial_));
    }
    world_.all_barrier();
    return work;
  }

  void on_first(const std::function<void()>& work) const {
    world_.all_barrier();
    if (world_.rank() == 0) work();
    world_.all_barrier();
  }

  fs::path partial_ = directory_ / "output.reap-partial";
  std::int64_t files_ = static_cast<std::int64_t>(
      plan_output(source_.checkpoint, source_.model, source_.claims, plan_, small_files()).size());
};

TEST_F(Resume, FinishedFilesAreKept) {
  const auto whole = undisturbed();
  stop_at_the_end();
  const WriteWork work = go_on(true);
  if (world_.rank() == 0) {
    EXPECT_EQ(work.kept_files, files_);
    EXPECT_EQ(work.bytes, 0);
    EXPECT_GT(work.kept_bytes, 0);
  }
  EXPECT_TRUE(read_directory(directory_ / "output") == whole);
}

TEST_F(Resume, AStopInTheMiddleOfAFileLeavesNoHalfOne) {
  const auto whole = undisturbed();
  WriteEvents events;
  std::int64_t left = 200'000;
  events.progress = [&](std::int64_t bytes) {
    if ((left -= bytes) < 0) throw Error(ExitCode::stopped, "stopped");
  };
  expect_error(ExitCode::stopped, {"stopped"}, [&] { write_with(events); });
  go_on(false);
  EXPECT_TRUE(read_directory(directory_ / "output") == whole);
}

TEST_F(Resume, WhatIsNotCertainlyFinishedIsWrittenAgain) {
  const auto whole = undisturbed();
  stop_at_the_end();
  on_first([&] {
    const fs::path notes = partial_ / ".reap-unfinished";
    const auto name = [&](int file) { return fmt::format("model-{:05}-of-{:05}.safetensors", file, files_); };
    fs::remove(notes / (name(1) + ".json"));
    fs::resize_file(partial_ / name(2), 100);
    write_text(notes / (name(3) + ".json"), "{\"bytes\": ");
    write_text(notes / (name(4) + ".json"), "[]");
    fs::remove(partial_ / name(5));
    write_text(partial_ / "foreign", "x");
    write_text(notes / "foreign", "x");
    fs::create_directory(partial_ / "folder");
  });
  const WriteWork work = go_on(true);
  EXPECT_EQ(work.kept_files, world_.rank() == 0 ? files_ - 5 : 0);
  EXPECT_TRUE(read_directory(directory_ / "output") == whole);
}

TEST_F(Resume, WhatNobodyWillProveIsReadAgain) {
  const auto whole = undisturbed();
  stop_at_the_end();
  on_first([&] {
    const auto path = [&](int file) {
      return partial_ / fmt::format("model-{:05}-of-{:05}.safetensors", file, files_);
    };
    for (const int file : {1, 3}) {
      std::string bytes = read_text(path(file));
      bytes[file == 1 ? 9 : bytes.size() - 1] ^= 1;  // in the header, and in the last tensor
      write_text(path(file), bytes);
    }
    const fs::path record = partial_ / ".reap-unfinished" / (path(4).filename().string() + ".json");
    std::string text = read_text(record);
    text[text.size() - 5] = text[text.size() - 5] == '0' ? '1' : '0';  // of the last tensor's digest
    write_text(record, text);
  });
  const WriteWork work = go_on(false);
  EXPECT_EQ(work.kept_files, world_.rank() == 0 ? files_ - 3 : 0);
  EXPECT_TRUE(read_directory(directory_ / "output") == whole);
}

TEST_F(Resume, NothingIsKeptForAnotherOutput) {
  const std::vector<std::function<void(Plan&, WriteOptions&)>> changes{
      [&](Plan& plan, WriteOptions&) { plan = shuffled_plan(source_, 3); },
      [](Plan& plan, WriteOptions&) { plan.calibration_digest[0] = 'f'; },
      [](Plan&, WriteOptions& options) { options.max_shard_bytes += 1; },
      [](Plan&, WriteOptions& options) { options.mtp = Mtp::keep; },
  };
  for (const auto& change : changes) {
    stop_at_the_end();
    Plan plan = plan_;
    WriteOptions options = small_files();
    change(plan, options);
    WriteEvents events;
    events.begin = [](const WriteWork& work) { EXPECT_EQ(work.kept_files, 0); };
    all_write_checkpoint(world_, source_.checkpoint, source_.model, plan, directory_ / "output", options, events);
    EXPECT_EQ(directory_.entries(), std::vector<std::string>{"output"});
    on_first([&] { fs::remove_all(directory_ / "output"); });
  }
}

TEST_F(Resume, NothingIsKeptWhenTheSourceWasTouched) {
  on_first([&] { fs::copy(test_model("m2-mini-fp8"), directory_ / "source"); });
  const OpenSource source(directory_ / "source");
  WriteEvents stop, events;
  stop.all_check = [](const fs::path&) { throw SharedError(ExitCode::stopped, "stopped"); };
  const auto write_from_copy = [&](const WriteEvents& e) {
    all_write_checkpoint(world_, source.checkpoint, source.model, plan_, directory_ / "output", small_files(), e);
  };
  expect_error(ExitCode::stopped, {"stopped"}, [&] { write_from_copy(stop); });
  on_first([&] {
    const fs::path file = directory_ / "source" / source.checkpoint.files()[0];
    fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  });
  events.begin = [](const WriteWork& work) { EXPECT_EQ(work.kept_files, 0); };
  write_from_copy(events);
}

TEST_F(Resume, AnErrorLeavesNothingEvenOfWhatWasKept) {
  stop_at_the_end();
  WriteEvents events;
  events.all_check = [](const fs::path&) { throw SharedError(ExitCode::bad_input, "differs"); };
  expect_error(ExitCode::bad_input, {"differs"}, [&] { write_with(events); });
  world_.all_barrier();
  EXPECT_EQ(directory_.entries(), std::vector<std::string>{});
}

// What goes wrong

TEST_F(WriteMini, AnExistingOutputIsReplacedOnlyWhenAsked) {
  write(source_, plan_, directory_ / "output", {});
  const Plan other = shuffled_plan(source_, 3);
  expect_error(ExitCode::bad_input, {"output", "--overwrite"},
               [&] { write(source_, other, directory_ / "output", {}); });
  expect_same_tensors(read_all_tensors(directory_ / "output"),
                      prune(read_all_tensors(test_model("m2-mini-fp8")), plan_, false));
  world_.all_barrier();
  WriteOptions options;
  options.overwrite = true;
  write(source_, other, directory_ / "output", options);
  expect_same_tensors(read_all_tensors(directory_ / "output"),
                      prune(read_all_tensors(test_model("m2-mini-fp8")), other, false));
  EXPECT_EQ(directory_.entries(), std::vector<std::string>{"output"});
}

TEST_F(WriteMini, APlanForAnotherModelIsRefused) {
  Plan plan = plan_;
  plan.model_digest = std::string(64, '0');
  expect_error(ExitCode::bad_input, {"another model", plan.model_digest},
               [&] { write(source_, plan, directory_ / "output", {}); });
  EXPECT_EQ(directory_.entries(), std::vector<std::string>{});
}

TEST_F(WriteMini, AFailureOfOneRankLeavesTheOldState) {
  write(source_, plan_, directory_ / "output", {});
  const auto before = read_directory(directory_ / "output");
  world_.all_barrier();
  WriteOptions options = small_files();
  options.overwrite = true;
  {
    const bool last = world_.rank() == world_.size() - 1;
    const SizeLimit limit(last ? 100'000 : RLIM_INFINITY);  // its disk is full, as it were
    expect_error(ExitCode::io, {"output.reap-partial/model-0", "free space"},
                 [&] { write(source_, shuffled_plan(source_, 5), directory_ / "output", options); });
  }
  world_.all_barrier();
  EXPECT_EQ(directory_.entries(), std::vector<std::string>{"output"});
  EXPECT_TRUE(read_directory(directory_ / "output") == before);
}

TEST_F(WriteMini, ASourceThatShrinksIsAnErrorThatNamesIt) {
  if (world_.rank() == 0) fs::copy(test_model("m2-mini-fp8"), directory_ / "source");
  world_.all_barrier();
  const OpenSource source(directory_ / "source");
  world_.all_barrier();
  if (world_.rank() == 0) fs::resize_file(directory_ / "source" / "model-00003-of-00011.safetensors", 200'000);
  world_.all_barrier();
  expect_error(ExitCode::io, {"model-00003-of-00011.safetensors"},
               [&] { write(source, plan_, directory_ / "output", {}); });
  world_.all_barrier();
  EXPECT_EQ(directory_.entries(), std::vector<std::string>{"source"});
}

TEST_F(WriteMini, ADiskTooSmallIsRefusedBeforehand) {
  std::int64_t mounted = 0;
  if (world_.rank() == 0) {
    fs::create_directory(directory_ / "disk");
    mounted = ::mount("none", (directory_ / "disk").c_str(), "tmpfs", 0, "size=256k") == 0 ? 1 : 0;
  }
  world_.all_max(std::span(&mounted, 1));
  if (mounted == 0) GTEST_SKIP() << "a file system can only be mounted by root";
  expect_error(ExitCode::io, {"disk", "needs", "are free"},
               [&] { write(source_, plan_, directory_ / "disk" / "output", {}); });
  world_.all_barrier();
  EXPECT_TRUE(fs::is_empty(directory_ / "disk"));
  world_.all_barrier();
  if (world_.rank() == 0) ::umount((directory_ / "disk").c_str());
}

}  // namespace
}  // namespace reap
