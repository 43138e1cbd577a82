#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace reap {

/// What the program says while it works: rank 0 on stderr, and every rank in its own file when there is a log folder.
class Log {
 public:
  /// @param directory  made if missing; empty = no files
  /// @throws Error(io) when the file cannot be made
  Log(const std::filesystem::path& directory, int rank);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void info(const std::string& text);
  void warn(const std::string& text);
  /// Into this rank's file only: rank 0's stderr has the live line instead.
  void file_only(const std::string& text);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reap
