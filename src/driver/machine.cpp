#include "driver/machine.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

constexpr double kGiga = 1e9;
constexpr std::uint64_t kMaxFileBytes = 1'000'000;

// What one thread reaches in a whole pass, in GFLOP/s: 0.9 of oneDNN's own rates at real widths, which were 90 (AVX2),
// 110 and 220 (Zen 4), and 165 and 840 (an Intel core with AMX).
struct CpuRates {
  CpuIsa isa;
  double bf16, fp32;
};
constexpr CpuRates kCpuRates[] = {
    {CpuIsa::avx2, 80, 80}, {CpuIsa::avx512, 100, 100}, {CpuIsa::avx512_bf16, 200, 100}, {CpuIsa::amx, 750, 150}};

// Published peaks, dense, SXM form: TFLOP/s in bf16 and fp32, memory rate in TB/s, memory in GB.
struct GpuPeaks {
  std::string_view kind;
  double bf16, fp32, memory_rate, memory;
};
constexpr GpuPeaks kGpuPeaks[] = {
    {"h200", 989, 67, 4.8, 141}, {"h100", 989, 67, 3.35, 80}, {"a100", 312, 19.5, 2.0, 80}};
constexpr double kGpuShare = 0.4;  // of the peak: assumed, nothing of this program was measured on a GPU
constexpr double kUsableMemory = 0.9;

void set_all(Machine& machine, const std::vector<std::pair<std::string_view, double>>& values, const char* source) {
  for (const auto& [key, value] : values) set_value(machine, key, value, source);
}

/// A cluster's network and file system, as a guess where nobody has said better.
void set_surroundings(Machine& machine) {
  set_all(machine, {{"read", 1}, {"read-total", 10}, {"write", 1}, {"write-total", 10}, {"link", 10}, {"latency", 5}},
          "assumed");
}

Machine cpu_machine(int threads, CpuIsa isa) {
  Machine machine;
  set_surroundings(machine);
  const auto* rates =
      std::find_if(std::begin(kCpuRates), std::end(kCpuRates), [&](const CpuRates& r) { return r.isa == isa; });
  REAP_CHECK(rates != std::end(kCpuRates), "no rates of instruction set {}", name_of(isa));
  machine.kind = fmt::format("cpu, {} threads, {}", threads, name_of(isa));
  set_all(machine, {{"bf16", rates->bf16 * threads}, {"fp32", rates->fp32 * threads}, {"layout", 1.0 * threads}},
          "measured on other machines");
  set_all(machine, {{"memory-rate", 5.0 * threads}, {"memory", 0}}, "assumed");
  return machine;
}

Machine gpu_machine(const GpuPeaks& peaks) {
  Machine machine;
  set_surroundings(machine);
  machine.kind = peaks.kind;
  set_all(machine,
          {{"bf16", kGpuShare * 1e3 * peaks.bf16},
           {"fp32", kGpuShare * 1e3 * peaks.fp32},
           {"memory-rate", 1e3 * peaks.memory_rate},
           {"memory", kUsableMemory * peaks.memory}},
          "published");
  set_all(machine, {{"layout", 20}, {"link", 40}}, "assumed");
  return machine;
}

Machine machine_of_kind(std::string_view kind, int threads, CpuIsa isa) {
  const auto* gpu =
      std::find_if(std::begin(kGpuPeaks), std::end(kGpuPeaks), [&](const GpuPeaks& p) { return p.kind == kind; });
  return gpu == std::end(kGpuPeaks) ? cpu_machine(threads, isa) : gpu_machine(*gpu);
}

bool is_kind(std::string_view word) {
  const std::vector<std::string> kinds = machine_kinds();
  return std::find(kinds.begin(), kinds.end(), word) != kinds.end();
}

std::string all_keys() {
  std::vector<std::string_view> keys;
  for (const MachineValue& value : machine_values()) keys.push_back(value.key);
  return fmt::format("{}", fmt::join(keys, ", "));
}

/// What a word of --machine comes to.
struct Description {
  std::string kind;
  std::vector<std::pair<std::string, double>> values;
};

Description read_description(const std::string& file) {
  Description result;
  const Json json = parse_json(InputFile(file).read_text(kMaxFileBytes), file);
  if (!json.is_object()) fail(ExitCode::bad_input, "{}: not a JSON object", file);
  for (const auto& [key, value] : json.get_ref<const Json::object_t&>()) {
    if (key == "kind") {
      if (!value.is_string() || !is_kind(value.get<std::string>())) {
        fail(ExitCode::bad_input, "{}: kind must be one of {}", file, fmt::join(machine_kinds(), ", "));
      }
      result.kind = value.get<std::string>();
    } else {
      if (!value.is_number()) fail(ExitCode::bad_input, "{}: {} must be a number", file, shown(key));
      result.values.emplace_back(key, value.get<double>());
    }
  }
  return result;
}

Description parse_word(const std::string& word) {
  if (is_kind(word)) return {word, {}};
  const std::size_t sign = word.find('=');
  if (sign == std::string::npos) {
    if (std::filesystem::exists(word)) return read_description(word);
    fail(ExitCode::usage, "--machine {}: neither a kind ({}), a file, nor key=value", word,
         fmt::join(machine_kinds(), ", "));
  }
  const std::string text = word.substr(sign + 1);
  std::size_t used = 0;
  double number = 0;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size()) fail(ExitCode::usage, "--machine {}: '{}' is not a number", word, text);
  return {"", {{word.substr(0, sign), number}}};
}

}  // namespace

const std::vector<MachineValue>& machine_values() {
  static const std::vector<MachineValue> kValues = {
      {"bf16", "GFLOP/s", kGiga, &Machine::bf16, "products in bf16"},
      {"fp32", "GFLOP/s", kGiga, &Machine::fp32, "products in fp32"},
      {"memory-rate", "GB/s", kGiga, &Machine::memory_rate, "reading weights from memory"},
      {"layout", "GB/s", kGiga, &Machine::layout, "laying weights out for products"},
      {"read", "GB/s", kGiga, &Machine::read, "reading files, one rank"},
      {"read-total", "GB/s", kGiga, &Machine::read_total, "reading files, all ranks"},
      {"write", "GB/s", kGiga, &Machine::write, "writing files, one rank"},
      {"write-total", "GB/s", kGiga, &Machine::write_total, "writing files, all ranks"},
      {"link", "GB/s", kGiga, &Machine::link, "between two ranks"},
      {"latency", "us", 1e-6, &Machine::latency, "between two ranks"},
      {"memory", "GB", kGiga, &Machine::memory, "memory of a rank"},
  };
  return kValues;
}

std::vector<std::string> machine_kinds() {
  std::vector<std::string> kinds = {"cpu"};
  for (const GpuPeaks& peaks : kGpuPeaks) kinds.emplace_back(peaks.kind);
  return kinds;
}

void set_value(Machine& machine, std::string_view key, double value, std::string source) {
  const auto& values = machine_values();
  const auto found = std::find_if(values.begin(), values.end(), [&](const MachineValue& v) { return v.key == key; });
  if (found == values.end()) {
    fail(ExitCode::usage, "a machine has no {}; it has {}", shown(key), all_keys());
  }
  const bool may_be_zero = key == "memory" || key == "latency";
  if (!std::isfinite(value) || value < 0 || (value == 0 && !may_be_zero)) {
    fail(ExitCode::usage, "{} of a machine is {} {}: must be above zero", key, value, found->unit);
  }
  machine.*found->value = value * found->scale;
  machine.source.insert_or_assign(std::string(key), std::move(source));
}

Machine describe_machine(const std::vector<std::string>& words, int threads, CpuIsa isa) {
  std::string kind = "cpu";
  std::vector<Description> said;
  for (const std::string& word : words) {
    said.push_back(parse_word(word));
    if (!said.back().kind.empty()) kind = said.back().kind;
  }
  Machine machine = machine_of_kind(kind, threads, isa);
  for (const Description& description : said) {
    for (const auto& [key, value] : description.values) set_value(machine, key, value, "given");
  }
  return machine;
}

}  // namespace reap
