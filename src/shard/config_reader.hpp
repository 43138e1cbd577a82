#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "shard/json.hpp"

namespace reap {

/// Reads the members of a config.json object one by one. A member that is null counts as absent.
/// Every refusal is an Error(bad_input) that names the file, the key and the value found.
class ConfigReader {
 public:
  /// @param object  must outlive the reader
  /// @param file    names config.json in errors
  ConfigReader(const Json& object, std::string file) : object_{object}, file_{std::move(file)} {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const Json* find(std::string_view key) const;

  std::string text(std::string_view key) const;
  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most) const;
  std::optional<std::int64_t> optional_integer(std::string_view key, std::int64_t least, std::int64_t most) const;
  /// A finite number above zero.
  double positive(std::string_view key) const;
  std::optional<double> optional_positive(std::string_view key) const;

  /// The member must be there and equal `value`: the one variant that we compute.
  void require(std::string_view key, const Json& value) const;
  void require_if_present(std::string_view key, const Json& value) const;
  void require_absent(std::string_view key) const;
  /// The members of the object `key`; errors name "key.member".
  std::optional<ConfigReader> optional_object(std::string_view key) const;

  [[noreturn]] void refuse(std::string_view key, std::string_view why) const;

 private:
  const Json& object_;
  std::string file_;
  std::string prefix_;  // "quantization_config." within that object
};

}  // namespace reap
