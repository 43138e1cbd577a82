#include "driver/atomic_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "kernels/error.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

class AtomicFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "reap_atomic_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::ptrdiff_t entries() const { return std::distance(fs::directory_iterator(directory_), fs::directory_iterator()); }

  fs::path directory_;
};

TEST_F(AtomicFile, WritesTheBytesAndLeavesNothingElse) {
  const std::string text("line\n\0binary", 12);
  write_file_atomically(directory_ / "plan.json", text);
  EXPECT_EQ(read(directory_ / "plan.json"), text);
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFile, ReplacesALongerFileWhole) {
  write_file_atomically(directory_ / "f", std::string(100000, 'x'));
  write_file_atomically(directory_ / "f", "short");
  EXPECT_EQ(read(directory_ / "f"), "short");
  write_file_atomically(directory_ / "f", "");
  EXPECT_EQ(read(directory_ / "f"), "");
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFile, RemovesWhatKilledWritesHaveLeft) {
  for (const char* name : {"f.123.tmp", "f.7.tmp", "f..tmp", "f.1x.tmp", "ff.1.tmp", "f.1.tmp2", "f.tmp"}) {
    std::ofstream(directory_ / name) << "left";
  }
  write_file_atomically(directory_ / "f", "new");
  EXPECT_FALSE(fs::exists(directory_ / "f.123.tmp"));
  EXPECT_FALSE(fs::exists(directory_ / "f.7.tmp"));
  EXPECT_EQ(entries(), 6);
}

TEST_F(AtomicFile, TakesARelativeNameWithoutADirectory) {
  const fs::path before = fs::current_path();
  fs::current_path(directory_);
  write_file_atomically("here.json", "{}");
  fs::current_path(before);
  EXPECT_EQ(read(directory_ / "here.json"), "{}");
}

TEST_F(AtomicFile, MissingDirectoryIsAnErrorThatNamesTheFile) {
  try {
    write_file_atomically(directory_ / "absent" / "plan.json", "{}");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("absent/plan.json"), std::string::npos) << error.what();
  }
}

TEST_F(AtomicFile, FailedRenameRemovesTheTemporaryFile) {
  fs::create_directory(directory_ / "taken");
  EXPECT_THROW(write_file_atomically(directory_ / "taken", "x"), Error);
  EXPECT_EQ(entries(), 1);
}

// A size limit stands for a full disk: the write stops half way, first short, then with an error.
TEST_F(AtomicFile, StoppedWriteLeavesTheOldFileAlone) {
  write_file_atomically(directory_ / "f", "old");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 8192, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(write_file_atomically(directory_ / "f", std::string(100000, 'x')), Error);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read(directory_ / "f"), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(AtomicFile, SyncOfAMissingDirectoryIsAnError) { EXPECT_THROW(sync_directory(directory_ / "absent"), Error); }

}  // namespace
}  // namespace reap
