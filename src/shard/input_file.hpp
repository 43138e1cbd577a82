#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace reap {

/// A regular file open for reading at any offset, from several threads. Move-only.
class InputFile {
 public:
  /// @throws Error(bad_input) when there is no such file or it is not a regular one; Error(io) when it cannot be opened
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }  // when it was opened
  /// Device and inode: equal for two names of one file.
  std::pair<std::uint64_t, std::uint64_t> identity() const { return identity_; }

  /// Reads bytes [offset, offset + into.size()).
  /// @throws Error(io) on failure, or when the file has shrunk since it was opened
  void read(std::uint64_t offset, std::span<std::byte> into) const;
  /// The whole file as text. @throws Error(bad_input) when it is larger than `limit` bytes
  std::string read_text(std::uint64_t limit) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::pair<std::uint64_t, std::uint64_t> identity_;
};

}  // namespace reap
