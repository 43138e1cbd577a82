#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {

// Conversions that are exact or refused: nlohmann's own would cut off fractions and upper bits, and take true for 1.

inline bool convert(const Json& value, bool& into) {
  if (!value.is_boolean()) return false;
  into = value.get<bool>();
  return true;
}

inline bool convert(const Json& value, std::string& into) {
  if (!value.is_string()) return false;
  into = value.get<std::string>();
  return true;
}

inline bool convert(const Json& value, double& into) {
  if (!value.is_number()) return false;
  into = value.get<double>();
  return true;
}

template <std::integral Integer>
bool convert(const Json& value, Integer& into) {
  if (value.is_number_unsigned()) {
    into = value.get<Integer>();
    return std::in_range<Integer>(value.get<std::uint64_t>());
  }
  if (!value.is_number_integer()) return false;
  into = value.get<Integer>();
  return std::in_range<Integer>(value.get<std::int64_t>());
}

template <class Item>
bool convert(const Json& value, std::vector<Item>& into) {
  if (!value.is_array()) return false;
  into.resize(value.size());
  return std::ranges::equal(value, into, [](const Json& from, Item& to) { return convert(from, to); });
}

/// Reads members of a JSON object, naming text and member in errors.
class Members {
 public:
  Members(const Json& object, std::string where) : object_{object}, where_{std::move(where)} {
    if (!object.is_object()) fail(ExitCode::bad_input, "{}: is not a JSON object", where_);
  }

  template <class T>
  T get(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(ExitCode::bad_input, "{}: '{}' is missing", where_, key);
    T value{};
    if (!convert(*found, value)) fail(ExitCode::bad_input, "{}: '{}' is of the wrong type or too large", where_, key);
    return value;
  }

 private:
  const Json& object_;
  std::string where_;
};

}  // namespace reap
