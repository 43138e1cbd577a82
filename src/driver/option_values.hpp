#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "driver/calibration_parts.hpp"
#include "kernels/check.hpp"
#include "shard/saliency.hpp"

// What the texts of options mean. Each throws Error(usage) naming the option for a text that means nothing.
namespace reap {

/// "5GB", "512MiB", "1e9", "0" -> bytes.
std::int64_t parse_bytes(const std::string& text, const char* option);

/// "gram outputs" -> what a pass sums up besides the fields.
Collected parse_collect(const std::vector<std::string>& words);

/// Numbers with blanks or commas between.
std::vector<double> parse_numbers(const std::vector<std::string>& texts, const char* option);

/// Canonical names of criteria with blanks or commas between. @param automatic  whether kAutomatic is one
std::vector<std::string> parse_criteria(const std::vector<std::string>& texts, bool automatic);

/// "2/8" -> share 2 of 8.
PartChoice parse_part(const std::string& text);

template <class T>
T one_of(const std::string& text, const char* option, const std::vector<std::pair<std::string, T>>& choices) {
  std::string names;
  for (const auto& [name, value] : choices) {
    if (text == name) return value;
    names += (names.empty() ? "" : ", ") + name;
  }
  fail(ExitCode::usage, "--{} {}: must be one of {}", option, text, names);
}

}  // namespace reap
