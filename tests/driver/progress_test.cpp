#include "driver/progress.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "kernels/error.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

TEST(Readable, BytesKeepThreeDigits) {
  EXPECT_EQ(readable_bytes(0), "0 B");
  EXPECT_EQ(readable_bytes(999), "999 B");
  EXPECT_EQ(readable_bytes(1000), "1.00 kB");
  EXPECT_EQ(readable_bytes(12'340'000), "12.3 MB");
  EXPECT_EQ(readable_bytes(999'600'000), "1.00 GB");
  EXPECT_EQ(readable_bytes(230'000'000'000), "230 GB");
}

TEST(Readable, SecondsGrowIntoHours) {
  EXPECT_EQ(readable_seconds(4.21), "4.2 s");
  EXPECT_EQ(readable_seconds(59.97), "1 min 00 s");
  EXPECT_EQ(readable_seconds(67), "1 min 07 s");
  EXPECT_EQ(readable_seconds(7500), "2 h 05 min");
}

TEST(Progress, EveryPhaseEndIsAMetricsLine) {
  const auto file = std::filesystem::temp_directory_path() / ("progress_test_" + std::to_string(::getpid()) + ".jsonl");
  {
    Log log({}, 1);
    Progress progress(log, 0, file);
    progress.begin("observe", "tokens", 1000, 500, 2e6);
    progress.advance(250, 1);
    progress.end();
    progress.begin("write", "bytes", 10, 10);
    progress.end();
    ASSERT_EQ(progress.phases().size(), 2U);
    EXPECT_EQ(progress.phases()[0].units, 1000);
  }
  std::ifstream in(file);
  std::string line;
  std::vector<Json> lines;
  while (std::getline(in, line)) lines.push_back(Json::parse(line));
  std::filesystem::remove(file);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0]["event"], "phase_end");
  EXPECT_EQ(lines[0]["phase"], "observe");
  EXPECT_EQ(lines[0]["share"], 1.0);
  EXPECT_TRUE(lines[0].contains("gflops"));
  EXPECT_GE(lines[0]["cpu_seconds"], 0.0);
  EXPECT_FALSE(lines[1].contains("gflops"));
}

TEST(Progress, MetricsFileThatCannotBeOpenedIsAnError) {
  Log log({}, 1);
  EXPECT_THROW(Progress(log, 0, "/nonexistent/folder/metrics.jsonl"), Error);
}

TEST(Log, WritesAFilePerRank) {
  const auto folder = std::filesystem::temp_directory_path() / ("log_test_" + std::to_string(::getpid()));
  { Log(folder, 3).info("hello"); }
  std::ifstream in(folder / "rank-0003.log");
  std::string line;
  std::getline(in, line);
  EXPECT_NE(line.find("hello"), std::string::npos);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace reap
