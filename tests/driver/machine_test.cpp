#include "driver/machine.hpp"

#include <gtest/gtest.h>

#include "driver/expect_error.hpp"
#include "driver/temporary_directory.hpp"

namespace reap {
namespace {

TEST(Machine, DefaultsByKind) {
  const Machine cpu = describe_machine({}, 8, CpuIsa::avx512_bf16);
  const Machine gpu = describe_machine({"h200"}, 8, CpuIsa::avx512_bf16);
  EXPECT_EQ(cpu.bf16, 8 * describe_machine({}, 1, CpuIsa::avx512_bf16).bf16) << "threads scale";
  EXPECT_GT(cpu.bf16, cpu.fp32);
  EXPECT_EQ(describe_machine({}, 8, CpuIsa::avx2).bf16, describe_machine({}, 8, CpuIsa::avx2).fp32);
  EXPECT_GT(gpu.bf16, 50 * cpu.bf16);
  EXPECT_EQ(gpu.source.at("bf16"), "published");
  EXPECT_EQ(cpu.memory, 0);
  EXPECT_GT(gpu.memory, 100e9);
  for (const MachineValue& value : machine_values()) {
    EXPECT_TRUE(cpu.source.contains(value.key)) << value.key << " has no source";
    EXPECT_TRUE(gpu.source.contains(value.key)) << value.key << " has no source";
  }
}

TEST(Machine, LaterWordsWin) {
  const TemporaryDirectory folder;
  const std::string file = folder / "cluster.json";
  write_text(file, R"({"kind": "h100", "read": 2.5, "latency": 0})");
  const Machine machine = describe_machine({file, "read-total=40", "memory=70", "memory=60"}, 8, CpuIsa::avx512);
  EXPECT_EQ(machine.kind, "h100");
  EXPECT_DOUBLE_EQ(machine.read, 2.5e9);
  EXPECT_DOUBLE_EQ(machine.read_total, 40e9);
  EXPECT_DOUBLE_EQ(machine.memory, 60e9);
  EXPECT_DOUBLE_EQ(machine.latency, 0);
  EXPECT_EQ(machine.source.at("read"), "given");
  EXPECT_EQ(machine.source.at("link"), "assumed");
}

TEST(Machine, RefusesWhatCannotBeMeant) {
  const TemporaryDirectory folder;
  const auto refused = [](ExitCode code, const std::string& word, const std::vector<std::string>& texts) {
    expect_error(code, texts, [&] { describe_machine({word}, 1, CpuIsa::avx2); });
  };
  refused(ExitCode::usage, "h999", {"h999", "h200"});
  refused(ExitCode::usage, "speed=3", {"speed", "read-total"});
  refused(ExitCode::usage, "read=", {"not a number"});
  refused(ExitCode::usage, "read=3GB", {"not a number"});
  refused(ExitCode::usage, "read=0", {"above zero"});
  refused(ExitCode::usage, "read=-1", {"above zero"});
  refused(ExitCode::usage, "read=nan", {"above zero"});
  const std::string file = folder / "bad.json";
  write_text(file, R"(["h200"])");
  refused(ExitCode::bad_input, file, {"not a JSON object"});
  write_text(file, R"({"kind": "h999"})");
  refused(ExitCode::bad_input, file, {"kind"});
  write_text(file, R"({"read": "fast"})");
  refused(ExitCode::bad_input, file, {"must be a number"});
}

}  // namespace
}  // namespace reap
