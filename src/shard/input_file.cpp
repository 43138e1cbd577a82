#include "shard/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/check.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

constexpr std::size_t kMaxRead = std::size_t{1} << 30;  // Linux reads at most 2^31 - 4096 bytes a call

[[noreturn]] void fail_open(const std::string& path, int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  fail(absent ? ExitCode::bad_input : ExitCode::io, "{}: cannot be opened: {}", path, std::strerror(error));
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path) : path_{path.string()} {
  // Not blocking, or a named pipe in the directory would hang the run; regular files do not care.
  do {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail_open(path_, errno);

  struct stat info {};
  const int status = ::fstat(descriptor_, &info);
  const int error = errno;
  if (status == 0 && S_ISREG(info.st_mode)) {
    size_ = static_cast<std::uint64_t>(info.st_size);
    identity_ = {info.st_dev, info.st_ino};
    return;
  }
  ::close(descriptor_);
  if (status != 0) fail_open(path_, error);
  fail(ExitCode::bad_input, "{}: not a regular file", path_);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_{std::move(other.path_)},
      descriptor_{std::exchange(other.descriptor_, -1)},
      size_{other.size_},
      identity_{std::move(other.identity_)} {}

void InputFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t got = ::pread(descriptor_, into.data(), std::min(into.size(), kMaxRead), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ExitCode::io, "{}: reading at offset {} failed: {}", path_, offset, std::strerror(errno));
    if (got == 0) {
      fail(ExitCode::io, "{}: no data at offset {}, but it had {} bytes when it was opened: it has shrunk", path_,
           offset, size_);
    }
    operations::moved();
    offset += static_cast<std::uint64_t>(got);
    into = into.subspan(static_cast<std::size_t>(got));
  }
}

std::string InputFile::read_text(std::uint64_t limit) const {
  if (size_ > limit) fail(ExitCode::bad_input, "{}: {} bytes, at most {} are accepted", path_, size_, limit);
  std::string text(size_, '\0');
  read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace reap
