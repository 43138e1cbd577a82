#include "driver/option_values.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "driver/criteria.hpp"
#include "driver/variants.hpp"

namespace reap {

std::int64_t parse_bytes(const std::string& text, const char* option) {
  std::size_t used = 0;
  double number = -1;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  static const std::vector<std::pair<std::string, double>> kUnits = {
      {"", 1.0},    {"B", 1.0},      {"KB", 1e3},        {"MB", 1e6},           {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
  const auto found = std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& u) { return u.first == unit; });
  if (used == 0 || found == kUnits.end() || !(number >= 0) || number * found->second > 9e18) {
    fail(ExitCode::usage, "--{} {}: not a size; write for example 5GB, 512MiB or 1000000", option, text);
  }
  return static_cast<std::int64_t>(std::llround(number * found->second));
}

Collected parse_collect(const std::vector<std::string>& words) {
  Collected collected;
  for (const std::string& word : words) {
    if (word == "gram") {
      collected.gram = true;
    } else if (word == "outputs") {
      collected.outputs = true;
    } else if (word == "imatrix") {
      collected.imatrix = true;
    } else if (word == "moments") {
      collected.moments = true;
    } else if (word != "none" || words.size() > 1) {
      fail(ExitCode::usage, "--collect {}: must be some of gram, outputs, imatrix and moments, or none",
           fmt::join(words, " "));
    }
  }
  return collected;
}

namespace {

/// What is between commas, in all of the texts.
std::vector<std::string> split_at_commas(const std::vector<std::string>& texts) {
  std::vector<std::string> items;
  for (const std::string& text : texts) {
    for (std::size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
      end = text.find(',', begin);
      items.push_back(text.substr(begin, end - begin));
    }
  }
  return items;
}

}  // namespace

std::vector<double> parse_numbers(const std::vector<std::string>& texts, const char* option) {
  std::vector<double> numbers;
  for (const std::string& item : split_at_commas(texts)) {
    const char* const end = item.data() + item.size();
    const auto parsed = std::from_chars(item.data(), end, numbers.emplace_back());
    if (parsed.ec != std::errc() || parsed.ptr != end) fail(ExitCode::usage, "--{} {}: not a number", option, item);
  }
  return numbers;
}

std::vector<std::string> parse_criteria(const std::vector<std::string>& texts, bool automatic) {
  std::vector<std::string> names = split_at_commas(texts);
  for (std::string& name : names) {
    if (!automatic || name != kAutomatic) name = parse_criterion(name).name;
  }
  return names;
}

PartChoice parse_part(const std::string& text) {
  PartChoice part{0, 0};
  const char* const end = text.data() + text.size();
  const auto index = std::from_chars(text.data(), end, part.index);
  if (index.ec == std::errc() && index.ptr != end && *index.ptr == '/') {
    const auto count = std::from_chars(index.ptr + 1, end, part.count);
    if (count.ec == std::errc() && count.ptr == end && 1 <= part.index && part.index <= part.count) return part;
  }
  fail(ExitCode::usage, "--part {}: not a share; write I/N, with I from 1 to N", text);
}

}  // namespace reap
