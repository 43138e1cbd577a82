#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace reap {

/// Writes a new file of known size from front to back. What has been written starts on its way to the disk at once, so
/// that finish() has little to wait for. A file that was not finished is left as it is: its directory is temporary.
class FileWriter {
 public:
  /// Creates `path`, which must not exist, and reserves its space. @throws Error(io)
  FileWriter(const std::filesystem::path& path, std::uint64_t bytes);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void append(std::span<const std::byte> bytes);
  /// All bytes are on the disk when it returns.
  void finish();

 private:
  void reserve() const;
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t bytes_;
  std::uint64_t written_ = 0;
};

}  // namespace reap
