#include "shard/hidden_states.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <string>

#include "kernels/error.hpp"

namespace reap {
namespace {

constexpr std::int64_t kHidden = 3;

class HiddenStatesTest : public testing::TestWithParam<bool> {
 protected:
  std::filesystem::path scratch() const { return GetParam() ? std::filesystem::temp_directory_path() : ""; }
  const std::unique_ptr<Backend> backend_ = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
};

std::vector<float> values(std::int64_t rows, float first) {
  std::vector<float> x(static_cast<std::size_t>(rows * kHidden));
  std::iota(x.begin(), x.end(), first);
  return x;
}

TEST_P(HiddenStatesTest, KeepsEachBlockOfAWave) {
  HiddenStates states(*backend_, 20, kHidden, scratch());
  for (const std::vector<std::int64_t>& rows : {std::vector<std::int64_t>{7, 0, 1, 12}, {1, 19}, {20}}) {
    states.begin(rows);
    for (std::size_t block = rows.size(); block-- > 0;) {
      states.store(block, values(rows[block], static_cast<float>(100 * block)).data());
    }
    for (std::size_t block = 0; block < rows.size(); ++block) {
      const std::vector<float> expected = values(rows[block], static_cast<float>(100 * block));
      std::vector<float> x(expected.size());
      states.load(block, x.data());
      EXPECT_EQ(x, expected);
      std::fill(x.begin(), x.end(), -1.0F);
      states.read(block, x.data());
      EXPECT_EQ(x, expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, HiddenStatesTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "Scratch" : "Memory"; });

TEST(HiddenStates, AFolderThatIsNotThereIsNamed) {
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  try {
    HiddenStates(*backend, 1, kHidden, "/nowhere/at/all");
    FAIL() << "made a file";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("/nowhere/at/all"), std::string::npos) << error.what();
  }
}

/// The descriptor of the scratch file that is open, which has no name.
int scratch_descriptor() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the descriptor of the listing itself
    const std::string name = std::filesystem::read_symlink(entry.path(), gone).string();
    if (name.find("reap-scratch") != std::string::npos) return std::stoi(entry.path().filename().string());
  }
  return -1;
}

TEST(HiddenStates, WhatTheDiskHasLostIsAnError) {
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  HiddenStates states(*backend, 4, kHidden, std::filesystem::temp_directory_path());
  states.begin({1, 3});
  states.store(0, values(1, 5).data());
  states.store(1, values(3, 7).data());
  const char lost = 0;
  ASSERT_EQ(::pwrite(scratch_descriptor(), &lost, 1, (4 * kHidden) * static_cast<off_t>(sizeof(float)) - 1), 1);
  std::vector<float> x(3 * kHidden);
  EXPECT_NO_THROW(states.load(0, x.data()));
  EXPECT_THROW(states.read(1, x.data()), Error);
  try {
    states.load(1, x.data());
    FAIL() << "took what it had not written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("has not been kept"), std::string::npos) << error.what();
  }
}

TEST(HiddenStates, ReadingWhatWasNeverWrittenIsAnError) {
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  HiddenStates states(*backend, 4, kHidden, std::filesystem::temp_directory_path());
  states.begin({4});
  std::vector<float> x(4 * kHidden);
  EXPECT_THROW(states.load(0, x.data()), Error);
}

}  // namespace
}  // namespace reap
