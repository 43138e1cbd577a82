#include "driver/file_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::size_t kMaxWrite = std::size_t{1} << 30;  // Linux writes at most 2^31 - 4096 bytes a call

[[noreturn]] void fail_io(const std::string& path, const char* verb, std::uint64_t offset, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  fail(ExitCode::io, "{}: cannot {} at offset {}: {}{}", path, verb, offset, std::strerror(error),
       full ? "; free space or choose another disk" : "");
}

}  // namespace

FileWriter::FileWriter(const std::filesystem::path& path, std::uint64_t bytes) : path_{path.string()}, bytes_{bytes} {
  do {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail(ExitCode::io, "{}: cannot be created: {}", path_, std::strerror(errno));
  try {
    reserve();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

// Not posix_fallocate: where the file system cannot reserve, that one writes a byte into every block.
void FileWriter::reserve() const {
  if (bytes_ == 0) return;
  int status = 0;
  do {
    status = ::fallocate(descriptor_, 0, 0, static_cast<off_t>(bytes_));
  } while (status != 0 && errno == EINTR);
  if (status != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
    fail_io(path_, "reserve its space", bytes_, errno);
  }
}

void FileWriter::append(std::span<const std::byte> bytes) {
  const std::uint64_t begin = written_;
  REAP_CHECK(bytes.size() <= bytes_ - written_, "{}: {} + {} bytes into a file of {}", path_, written_, bytes.size(),
             bytes_);
  while (!bytes.empty()) {
    const ssize_t done =
        ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), kMaxWrite), static_cast<off_t>(written_));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail_io(path_, "write", written_, done < 0 ? errno : ENOSPC);
    written_ += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  // A hint only: what it could not start, finish() does, and reports.
  ::sync_file_range(descriptor_, static_cast<off_t>(begin), static_cast<off_t>(written_ - begin),
                    SYNC_FILE_RANGE_WRITE);
}

void FileWriter::finish() {
  REAP_CHECK(written_ == bytes_, "{}: {} of {} bytes written", path_, written_, bytes_);
  while (::fsync(descriptor_) != 0) {
    if (errno != EINTR) fail_io(path_, "flush", written_, errno);
  }
  const int descriptor = descriptor_;
  descriptor_ = -1;  // Linux frees the number even when close fails, so it is never closed twice
  if (::close(descriptor) != 0 && errno != EINTR) fail_io(path_, "close", written_, errno);
}

}  // namespace reap
