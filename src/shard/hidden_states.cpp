#include "shard/hidden_states.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "kernels/check.hpp"
#include "shard/room.hpp"

namespace reap {

namespace {

/// Another one after any change of one word, and after nearly all others. Four chains, so that no product waits for the
/// one before.
std::uint64_t check_sum(const std::byte* data, std::int64_t bytes) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15;
  std::array<std::uint64_t, 4> chain{1, 2, 3, 4};
  std::size_t word = 0;
  for (std::int64_t at = 0; at < bytes; at += static_cast<std::int64_t>(sizeof(std::uint32_t)), ++word) {
    std::uint32_t value = 0;
    std::memcpy(&value, data + at, sizeof value);
    chain[word % chain.size()] = (chain[word % chain.size()] ^ value) * kOdd;
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t one : chain) sum = (sum ^ one) * kOdd;
  return sum;
}

}  // namespace

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
  void read(std::int64_t offset, std::byte* into, std::int64_t bytes, std::uint64_t check) const {
    all(offset, bytes, "read",
        [&](std::int64_t done, std::size_t count, off_t at) { return ::pread(descriptor_, into + done, count, at); });
    if (check_sum(into, bytes) == check) return;
    fail(ExitCode::io,
         "scratch file {}: what was written at offset {} has not been kept; the disk is full or broken: choose another "
         "--scratch",
         path_, offset);
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
    check_.assign(rows.size(), 0);
    make_room(memory_, host_memory, rows.empty() ? 0 : std::ranges::max(rows) * row_bytes_);
  } else {
    REAP_CHECK(start_.back() <= memory_.bytes(), "a wave of {} bytes, room for {}", start_.back(), memory_.bytes());
  }
}

void HiddenStates::store(std::size_t block, const float* x) {
  std::byte* to = memory_.data() + (file_ ? 0 : start_[block]);
  backend_.download(to, x, static_cast<std::size_t>(bytes_of(block)));
  backend_.synchronize();
  if (!file_) return;
  check_[block] = check_sum(to, bytes_of(block));
  file_->write(start_[block], to, bytes_of(block));
}

void HiddenStates::load(std::size_t block, float* x) {
  std::byte* from = memory_.data() + (file_ ? 0 : start_[block]);
  if (file_) read_file(block, from);
  backend_.upload(x, from, static_cast<std::size_t>(bytes_of(block)));
  if (file_) backend_.synchronize();  // the memory takes the next block
}

void HiddenStates::read(std::size_t block, float* x) {
  auto* const to = reinterpret_cast<std::byte*>(x);
  if (file_) return read_file(block, to);
  std::copy_n(memory_.data() + start_[block], bytes_of(block), to);
}

void HiddenStates::read_file(std::size_t block, std::byte* to) const {
  file_->read(start_[block], to, bytes_of(block), check_[block]);
}

}  // namespace reap
