#include "shard/operations.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "kernels/error.hpp"

namespace reap::operations {
namespace {

/// A file that is gone after the test.
class File {
 public:
  explicit File(const std::string& name)
      : path_{std::filesystem::path(testing::TempDir()) / (std::to_string(getpid()) + "-" + name)} {}
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(Operations, LastIsWhatWasNotedLast) {
  phase("observe");
  EXPECT_EQ(last().layer, -1);
  note("experts", 17, 123);
  const Place place = last();
  EXPECT_EQ(place.phase, "observe");
  EXPECT_EQ(place.what, "experts");
  EXPECT_EQ(place.layer, 17);
  EXPECT_EQ(place.block, 123);
  EXPECT_GE(place.seconds_ago, 0);
  note("wait for the stage before");
  EXPECT_EQ(last().layer, 17);
  EXPECT_EQ(last().count, place.count + 1);
  phase("write");
  EXPECT_EQ(last().block, -1);
}

TEST(Operations, MovesAreCountedApart) {
  note("copy");
  const Place before = last();
  moved();
  EXPECT_EQ(last().moves, before.moves + 1);
  EXPECT_EQ(last().count, before.count);
}

TEST(Operations, AsText) {
  EXPECT_EQ(text_of({1, 0, 0, "observe", "experts", 17, 123, 12.34}),
            "observe, layer 17, block 123: experts, 12.3 s ago");
  EXPECT_EQ(text_of({1, 0, 0, "write", "begin", -1, -1, 0}), "write: begin, 0.0 s ago");
}

TEST(Operations, TheFileHoldsTheLastThousandInOrderWhenSorted) {
  const File file("rank-0003.operations");
  phase("load");
  keep_in(file.path());
  phase("observe");
  constexpr std::int64_t kNotes = 2345;
  for (std::int64_t i = 0; i < kNotes; ++i) note(i % 2 == 0 ? "attention" : "experts", i / 100, i);

  std::vector<std::string> lines = lines_of(file.path());
  ASSERT_EQ(lines.size(), kKept + 1);
  for (const std::string& line : lines) EXPECT_EQ(line.size(), lines[0].size());
  EXPECT_NE(lines[0].find("rank-0003, host "), std::string::npos) << lines[0];
  EXPECT_NE(lines[0].find("process " + std::to_string(getpid())), std::string::npos) << lines[0];
  std::sort(lines.begin(), lines.end());
  for (std::int64_t i = 1; i <= kKept; ++i) {
    const std::string& line = lines[static_cast<std::size_t>(i)];
    const std::string block = std::to_string(kNotes - kKept + i - 1);
    EXPECT_NE(line.find(" block " + std::string(8 - block.size(), ' ') + block + " "), std::string::npos) << line;
  }
  const auto place = last_in(file.path());
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->count, last().count);
  EXPECT_EQ(place->phase, "observe");
  EXPECT_EQ(place->what, "attention");
  EXPECT_EQ(place->layer, 23);
  EXPECT_EQ(place->block, kNotes - 1);
}

TEST(Operations, EarlierOnesComeAlongIntoAFile) {
  note("before there was a file", 5, 6);
  const File file("late.operations");
  keep_in(file.path());
  EXPECT_EQ(last_in(file.path())->what, "before there was a file");
}

TEST(Operations, NumbersAndTextsWiderThanTheirColumnsAreCut) {
  const File file("wide.operations");
  keep_in(file.path());
  phase("a phase with a long name");
  note("an operation that has a longer description than fits into its column of the record", 1'234'567, 98'765'432'100);
  for (const std::string& line : lines_of(file.path())) EXPECT_EQ(line.size(), 127U) << line;
  EXPECT_EQ(last_in(file.path())->count, last().count);
  phase("short");
}

TEST(Operations, TheFileSurvivesAKill) {
  const File file("killed.operations");
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    keep_in(file.path());
    phase("write");
    note("copy of the tensors", 3, 4);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto place = last_in(file.path());
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->phase, "write");
  EXPECT_EQ(place->what, "copy of the tensors");
}

TEST(Operations, ARecordInMemoryOutlivesItsProcess) {
  std::array<int, 2> pipe_ends{};
  ASSERT_EQ(pipe(pipe_ends.data()), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::string path = keep_in_memory().string();
    phase("observe");
    note("attention", 1, 2);
    if (write(pipe_ends[1], path.data(), path.size()) <= 0) _exit(1);
    pause();
  }
  std::array<char, 256> path{};
  ASSERT_GT(read(pipe_ends[0], path.data(), path.size() - 1), 0);
  const int descriptor = open(path.data(), O_RDONLY);
  ASSERT_GE(descriptor, 0) << path.data();
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  const auto place = last_in("/proc/self/fd/" + std::to_string(descriptor));
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->what, "attention");
  EXPECT_EQ(place->block, 2);
  close(descriptor);
}

TEST(Operations, NoPlaceInWhatIsNoRecord) {
  EXPECT_FALSE(last_in("/nonexistent/file").has_value());
  const File file("other");
  std::ofstream(file.path()) << "some text\n" << std::string(127, 'x') << "\n" << std::string(127, ' ') << "\n";
  EXPECT_FALSE(last_in(file.path()).has_value());
}

TEST(Operations, AFileThatCannotBeMadeIsAnIoError) {
  for (const char* path : {"/nonexistent/rank-0000.operations", "/dev/full"}) {
    try {
      keep_in(path);
      FAIL() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    }
  }
}

TEST(Operations, OtherThreadsReadAndMove) {
  const std::int64_t moves = last().moves;
  std::atomic<bool> over = false;
  std::int64_t counted = 0;
  std::thread watcher([&] {
    while (!over) {
      counted = std::max(counted, last().count);
      moved();
    }
  });
  for (int i = 0; i < 20'000; ++i) note("work", i, i);
  over = true;
  watcher.join();
  EXPECT_LE(counted, last().count);
  EXPECT_GE(last().moves, moves);
}

}  // namespace
}  // namespace reap::operations
