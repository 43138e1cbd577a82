#include "driver/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>

#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_io(const char* verb, const fs::path& path, int error) {
  fail(ExitCode::io, "cannot {} {}: {}", verb, path.string(), std::strerror(error));
}

fs::path directory_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

/// An open file that is closed whatever happens; close() reports what the destructor cannot.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : path_{path}, fd_{::open(path.c_str(), flags | O_CLOEXEC, 0666)} {
    if (fd_ < 0) fail_io("open", path_, errno);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  void write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t written = ::write(fd_, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_io("write", path_, errno);
      if (written == 0) fail_io("write", path_, ENOSPC);  // no progress and no error would loop for ever
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }

  void sync() const {
    while (::fsync(fd_) != 0) {
      if (errno != EINTR) fail_io("flush", path_, errno);
    }
  }

  void close() {
    const int fd = fd_;
    fd_ = -1;  // Linux frees the number even when close fails, so it is never closed twice
    if (::close(fd) != 0 && errno != EINTR) fail_io("close", path_, errno);
  }

 private:
  fs::path path_;
  int fd_;
};

/// Removes what writes that were killed have left beside `file`: "<file>.<number>.tmp".
void remove_leftovers(const fs::path& file) {
  const std::string begin = file.filename().string() + ".", end = ".tmp";
  std::error_code ignored;  // what cannot be removed is in nobody's way
  for (const auto& entry : fs::directory_iterator(directory_of(file), ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(begin) || !name.ends_with(end) || name.size() <= begin.size() + end.size()) continue;
    const std::string_view number(name.data() + begin.size(), name.size() - begin.size() - end.size());
    if (number.find_first_not_of("0123456789") == std::string_view::npos) fs::remove(entry.path(), ignored);
  }
}

/// Removes the temporary file unless it has been renamed into place.
class Temporary {
 public:
  explicit Temporary(fs::path path) : path_{std::move(path)} {}
  ~Temporary() {
    if (!renamed_) ::unlink(path_.c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  const fs::path& path() const { return path_; }
  void rename_to(const fs::path& file) {
    if (::rename(path_.c_str(), file.c_str()) != 0) fail_io("rename into place", file, errno);
    renamed_ = true;
  }

 private:
  fs::path path_;
  bool renamed_ = false;
};

}  // namespace

void write_file_atomically(const fs::path& file, std::string_view text) {
  remove_leftovers(file);
  Temporary temporary(file.string() + fmt::format(".{}.tmp", ::getpid()));
  Descriptor output(temporary.path(), O_WRONLY | O_CREAT | O_TRUNC);
  output.write(text);
  output.sync();
  output.close();
  temporary.rename_to(file);
  sync_directory(directory_of(file));
}

void sync_directory(const fs::path& directory) {
  Descriptor handle(directory, O_RDONLY | O_DIRECTORY);
  handle.sync();
  handle.close();
}

}  // namespace reap
