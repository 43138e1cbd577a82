#include "driver/staging.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "driver/expect_error.hpp"
#include "driver/manifest.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

class StagingTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(source_);
    write_text(source_ / "config.json", "{}");
  }

  /// A pruned model of an earlier run.
  void make_old() const {
    fs::create_directory(output_);
    write_text(output_ / kManifestName, "old");
  }

  /// Makes an output with one file in it.
  void make_new(const Staging& staging, bool overwrite) const {
    staging.create(source_, 1000, overwrite, stamp_);
    write_text(staging.directory() / kManifestName, "new");
  }

  std::string manifest() const { return read_text(output_ / kManifestName); }

  TemporaryDirectory directory_;
  fs::path source_ = directory_ / "source";
  fs::path output_ = directory_ / "output";
  std::string stamp_ = "{\"plan\": 1}";
};

TEST_F(StagingTest, NothingHasTheFinalNameBeforePublish) {
  const Staging staging(output_);
  make_new(staging, false);
  EXPECT_FALSE(fs::exists(output_));
  EXPECT_EQ(staging.directory().parent_path(), output_.parent_path());  // one file system, so that a rename will do
  staging.publish();
  EXPECT_EQ(manifest(), "new");
  EXPECT_EQ(directory_.entries(), 2);
}

TEST_F(StagingTest, DiscardLeavesNothing) {
  const Staging staging(output_);
  make_new(staging, false);
  staging.discard();
  EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(StagingTest, MakesTheParents) {
  const Staging staging(directory_ / "a" / "b" / "output");
  make_new(staging, false);
  staging.publish();
  EXPECT_EQ(read_text(directory_ / "a" / "b" / "output" / kManifestName), "new");
}

TEST_F(StagingTest, ATrailingSlashMeansTheSame) {
  EXPECT_EQ(Staging(output_ / "").output(), output_);
  EXPECT_EQ(Staging(output_ / "" / ".").output(), output_);
}

TEST_F(StagingTest, AnExistingOutputIsRefused) {
  make_old();
  expect_error(ExitCode::bad_input, {output_.string(), "--overwrite"}, [&] { make_new(Staging(output_), false); });
  EXPECT_EQ(manifest(), "old");
  EXPECT_EQ(directory_.entries(), 2);
}

TEST_F(StagingTest, OverwritingKeepsTheOldOneUntilTheNewOneIsDone) {
  make_old();
  const Staging staging(output_);
  make_new(staging, true);
  EXPECT_EQ(manifest(), "old");
  staging.publish();
  EXPECT_EQ(manifest(), "new");
  EXPECT_EQ(directory_.entries(), 2);
}

TEST_F(StagingTest, OverwritingTakesOnlyPrunedModelsAndEmptyDirectories) {
  fs::create_directory(output_);
  write_text(output_ / "thesis.tex", "years of work");
  expect_error(ExitCode::bad_input, {output_.string(), kManifestName}, [&] { make_new(Staging(output_), true); });
  fs::remove(output_ / "thesis.tex");
  make_new(Staging(output_), true);
  Staging(output_).publish();
  EXPECT_EQ(manifest(), "new");
}

TEST_F(StagingTest, ADanglingLinkIsThere) {
  fs::create_symlink("nowhere", output_);
  expect_error(ExitCode::bad_input, {output_.string(), "exists"}, [&] { make_new(Staging(output_), false); });
  expect_error(ExitCode::bad_input, {output_.string()}, [&] { make_new(Staging(output_), true); });
}

TEST_F(StagingTest, SourceAndOutputAreApart) {
  fs::create_directory_symlink(source_, directory_ / "link");
  for (const fs::path& output : {source_, source_ / "pruned", directory_ / "link" / "pruned", directory_ / "",
                                 directory_ / "output" / ".." / "source"}) {
    expect_error(ExitCode::bad_input, {"is the source"}, [&] { make_new(Staging(output), true); });
  }
  make_new(Staging(directory_ / "source2"), false);  // a name that only begins like the source's
}

TEST_F(StagingTest, WhatAKilledRunLeftIsKeptForTheSameOutputOnly) {
  make_new(Staging(output_), false);  // killed here
  const Staging staging(output_);
  write_text(staging.directory() / "half", "x");
  make_new(staging, false);
  EXPECT_TRUE(fs::exists(staging.directory() / "half"));
  stamp_ = "{\"plan\": 2}";
  make_new(staging, false);
  EXPECT_FALSE(fs::exists(staging.directory() / "half"));
}

TEST_F(StagingTest, LeftoversWithoutAStampGo) {
  const Staging staging(output_);
  fs::create_directory(staging.directory());  // killed before the stamp was there, or after it was removed
  write_text(staging.directory() / "half", "x");
  make_new(staging, false);
  EXPECT_FALSE(fs::exists(staging.directory() / "half"));
}

TEST_F(StagingTest, WhatIsPublishedHasNoStamp) {
  const Staging staging(output_);
  make_new(staging, false);
  staging.publish();
  EXPECT_EQ(std::distance(fs::directory_iterator(output_), fs::directory_iterator()), 1);
}

TEST_F(StagingTest, SpaceThatIsTakenAlreadyIsNotAskedForAgain) {
  const Staging staging(output_);
  make_new(staging, false);
  write_text(staging.directory() / "large", "");
  fs::resize_file(staging.directory() / "large", 1'000'000'000'000);  // takes no space
  EXPECT_NO_THROW(staging.create(source_, 1'000'000'000'100, false, stamp_));
}

TEST_F(StagingTest, AReplacementThatWasCutShortIsUndone) {
  make_old();
  const fs::path aside = output_.string() + ".reap-replaced";
  fs::rename(output_, aside);  // killed between the two renames
  expect_error(ExitCode::bad_input, {"exists"}, [&] { make_new(Staging(output_), false); });
  EXPECT_EQ(manifest(), "old");

  fs::create_directory(aside);  // killed after them, while the old one was deleted
  make_new(Staging(output_), true);
  EXPECT_FALSE(fs::exists(aside));
}

TEST_F(StagingTest, TooLittleSpaceIsSaidBeforehand) {
  expect_error(ExitCode::io, {"needs 9000000000000000000 more bytes", "are free"},
               [&] { Staging(output_).create(source_, 9'000'000'000'000'000'000, false, stamp_); });
  EXPECT_EQ(directory_.entries(), 1);
}

}  // namespace
}  // namespace reap
