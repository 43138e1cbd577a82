#include "shard/config_reader.hpp"

#include <cmath>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::size_t kMaxShown = 80;  // of a value in a message

}  // namespace

const Json* ConfigReader::find(std::string_view key) const {
  const auto member = object_.find(std::string(key));
  return member == object_.end() || member->is_null() ? nullptr : &*member;
}

void ConfigReader::refuse(std::string_view key, std::string_view why) const {
  const Json* value = find(key);
  const std::string found = value == nullptr ? "is missing" : "is " + value->dump(-1, ' ', true).substr(0, kMaxShown);
  fail(ExitCode::bad_input, "{}: {}{} {}: {}", file_, prefix_, key, found, why);
}

std::string ConfigReader::text(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_string()) refuse(key, "must be a string");
  return value->get<std::string>();
}

std::int64_t ConfigReader::integer(std::string_view key, std::int64_t least, std::int64_t most) const {
  const std::optional<std::int64_t> value = optional_integer(key, least, most);
  if (!value) refuse(key, fmt::format("must be an integer in [{}, {}]", least, most));
  return *value;
}

std::optional<std::int64_t> ConfigReader::optional_integer(std::string_view key, std::int64_t least,
                                                           std::int64_t most) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  // Numbers beyond 64 bits come as floats; those between 2^63 and 2^64 turn negative here, and `least` is never below
  // zero.
  if (!value->is_number_integer() || value->get<std::int64_t>() < least || value->get<std::int64_t>() > most) {
    refuse(key, fmt::format("must be an integer in [{}, {}]", least, most));
  }
  return value->get<std::int64_t>();
}

double ConfigReader::positive(std::string_view key) const {
  const std::optional<double> value = optional_positive(key);
  if (!value) refuse(key, "must be a number above zero");
  return *value;
}

std::optional<double> ConfigReader::optional_positive(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() <= 0) {
    refuse(key, "must be a number above zero");
  }
  return value->get<double>();
}

void ConfigReader::require(std::string_view key, const Json& value) const {
  const Json* found = find(key);
  if (found == nullptr || *found != value) refuse(key, "only " + value.dump() + " is supported");
}

void ConfigReader::require_if_present(std::string_view key, const Json& value) const {
  if (has(key)) require(key, value);
}

void ConfigReader::require_absent(std::string_view key) const {
  if (has(key)) refuse(key, "not supported");
}

std::optional<ConfigReader> ConfigReader::optional_object(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) refuse(key, "must be an object");
  ConfigReader inner(*value, file_);
  inner.prefix_ = prefix_ + std::string(key) + ".";
  return inner;
}

}  // namespace reap
