#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.hpp"

namespace reap {

/// What a rank has to work with, as far as time depends on it: bytes and operations per second. docs/estimate.md says
/// where the defaults come from.
struct Machine {
  std::string kind = "cpu";
  double bf16 = 0, fp32 = 0;                               // operations that a whole pass reaches in either type
  double memory_rate = 0;                                  // reading weights from the device's memory
  double layout = 0;                                       // bringing weights from the files' order into the products'
  double read = 0, read_total = 0;                         // from the file system: one rank, all ranks together
  double write = 0, write_total = 0;                       // likewise
  double link = 0, latency = 0;                            // between two ranks; latency in seconds
  double memory = 0;                                       // bytes per rank; 0 = of the machine that runs this
  std::map<std::string, std::string, std::less<>> source;  // by key: where a value comes from

  double flops(Compute compute) const { return compute == Compute::bf16 ? bf16 : fp32; }
};

/// One value of a machine as users name it.
struct MachineValue {
  std::string_view key;   // "read-total"
  std::string_view unit;  // "GB/s"
  double scale;           // bytes, operations or seconds per unit
  double Machine::*value;
  std::string_view what;
};
const std::vector<MachineValue>& machine_values();

/// Kinds of devices with defaults: "cpu", "h200", "h100", "a100".
std::vector<std::string> machine_kinds();

/// The machine that `words` describe, each a kind, a JSON file with values by key (and "kind"), or key=value; later
/// words win. Values without a word are the kind's defaults, those of a CPU with `threads` of `isa`.
/// @throws Error(usage), Error(bad_input) naming the word and what it may be
Machine describe_machine(const std::vector<std::string>& words, int threads, CpuIsa isa);

/// Replaces a value. @param source  where it comes from: "measured", ...
void set_value(Machine& machine, std::string_view key, double value, std::string source);

}  // namespace reap
