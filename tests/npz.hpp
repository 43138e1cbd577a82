#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace reap::test {

/// The float32 arrays of a file that numpy.savez has written (stored, not compressed), by name.
inline std::map<std::string, std::vector<float>> read_npz(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, text.data() + at, bytes);
    return value;
  };
  std::map<std::string, std::vector<float>> arrays;
  // Entry after entry of the archive's directory, each pointing at a local header, the array behind it.
  std::size_t entry = number(text.rfind("PK\5\6") + 16, 4);
  while (text.compare(entry, 4, "PK\1\2") == 0) {
    const std::size_t bytes = number(entry + 24, 4), name_bytes = number(entry + 28, 2);
    const std::size_t local = number(entry + 42, 4);
    const std::string name = text.substr(entry + 46, name_bytes - std::strlen(".npy"));
    const std::size_t array = local + 30 + number(local + 26, 2) + number(local + 28, 2);
    const std::size_t header = 10 + number(array + 8, 2);
    std::vector<float> values((bytes - header) / sizeof(float));
    std::memcpy(values.data(), text.data() + array + header, values.size() * sizeof(float));
    arrays.emplace(name, std::move(values));
    entry += 46 + name_bytes + number(entry + 30, 2) + number(entry + 32, 2);
  }
  return arrays;
}

}  // namespace reap::test
