#include "shard/hidden_states.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "kernels/check.hpp"
#include "shard/room.hpp"

namespace reap {

/// A file that is read and written at any offset, and has no name.
class HiddenStates::ScratchFile {
 public:
  explicit ScratchFile(const std::filesystem::path& folder) : path_{(folder / "reap-scratch-XXXXXX").string()} {
    descriptor_ = ::mkostemp(path_.data(), O_CLOEXEC);
    if (descriptor_ < 0)
      fail(ExitCode::io, "--scratch {}: no file can be made: {}", folder.string(), std::strerror(errno));
    ::unlink(path_.c_str());
  }
  ~ScratchFile() { ::close(descriptor_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  void write(std::int64_t offset, const std::byte* from, std::int64_t bytes) const {
    all(offset, bytes, "written",
        [&](std::int64_t done, std::size_t count, off_t at) { return ::pwrite(descriptor_, from + done, count, at); });
  }
  void read(std::int64_t offset, std::byte* into, std::int64_t bytes) const {
    all(offset, bytes, "read",
        [&](std::int64_t done, std::size_t count, off_t at) { return ::pread(descriptor_, into + done, count, at); });
  }

 private:
  template <class Call>
  void all(std::int64_t offset, std::int64_t bytes, const char* verb, Call call) const {
    constexpr std::int64_t kMost = std::int64_t{1} << 30;  // Linux moves at most 2^31 - 4096 bytes a call
    for (std::int64_t done = 0; done < bytes;) {
      const ssize_t moved =
          call(done, static_cast<std::size_t>(std::min(kMost, bytes - done)), static_cast<off_t>(offset + done));
      if (moved < 0 && errno == EINTR) continue;
      if (moved <= 0) {
        fail(ExitCode::io,
             "scratch file {}: cannot be {} at offset {}: {}; hidden states of a wave need more space there", path_,
             verb, offset + done, moved < 0 ? std::strerror(errno) : "it ends there");
      }
      done += moved;
    }
  }

  std::string path_;
  int descriptor_ = -1;
};

HiddenStates::HiddenStates(Backend& backend, std::int64_t rows, std::int64_t hidden,
                           const std::filesystem::path& scratch)
    : backend_{backend}, row_bytes_{hidden * static_cast<std::int64_t>(sizeof(float))} {
  if (scratch.empty()) {
    memory_ = Buffer<std::byte>(host_memory, rows * row_bytes_);
  } else {
    file_ = std::make_unique<ScratchFile>(scratch);
  }
}

HiddenStates::~HiddenStates() = default;

void HiddenStates::begin(const std::vector<std::int64_t>& rows) {
  start_.assign(1, 0);
  for (const std::int64_t count : rows) start_.push_back(start_.back() + count * row_bytes_);
  if (file_) {
    make_room(memory_, host_memory, rows.empty() ? 0 : std::ranges::max(rows) * row_bytes_);
  } else {
    REAP_CHECK(start_.back() <= memory_.bytes(), "a wave of {} bytes, room for {}", start_.back(), memory_.bytes());
  }
}

void HiddenStates::store(std::size_t block, const float* x) {
  std::byte* to = memory_.data() + (file_ ? 0 : start_[block]);
  backend_.download(to, x, static_cast<std::size_t>(bytes_of(block)));
  backend_.synchronize();
  if (file_) file_->write(start_[block], to, bytes_of(block));
}

void HiddenStates::load(std::size_t block, float* x) {
  std::byte* from = memory_.data() + (file_ ? 0 : start_[block]);
  if (file_) file_->read(start_[block], from, bytes_of(block));
  backend_.upload(x, from, static_cast<std::size_t>(bytes_of(block)));
  if (file_) backend_.synchronize();  // the memory takes the next block
}

void HiddenStates::read(std::size_t block, float* x) {
  if (file_) {
    file_->read(start_[block], reinterpret_cast<std::byte*>(x), bytes_of(block));
  } else {
    std::memcpy(x, memory_.data() + start_[block], static_cast<std::size_t>(bytes_of(block)));
  }
}

}  // namespace reap
