#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace reap::test {

/// An HDF5 file of goldens or tokens, read whole datasets at a time. Throws std::runtime_error naming file and dataset.
class GoldenFile {
 public:
  explicit GoldenFile(std::filesystem::path file);
  ~GoldenFile();
  GoldenFile(const GoldenFile&) = delete;
  GoldenFile& operator=(const GoldenFile&) = delete;

  bool has(const std::string& name) const;
  std::vector<std::string> members() const;  // of the root group, by name
  std::vector<std::int64_t> shape(const std::string& name) const;
  std::vector<double> reals(const std::string& name) const;
  std::vector<std::int64_t> integers(const std::string& name) const;

 private:
  std::filesystem::path file_;
  std::int64_t id_;
};

/// A path below tests/data.
std::filesystem::path data(const std::filesystem::path& path);
/// A path below the folder of larger test files, which may be absent.
std::filesystem::path shared(const std::filesystem::path& path);

}  // namespace reap::test
