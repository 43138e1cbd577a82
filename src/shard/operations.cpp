#include "shard/operations.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <mutex>

#include "kernels/check.hpp"
#include "shard/host_name.hpp"

namespace reap::operations {
namespace {

// A line of the record. Columns, each followed by a blank:
//   000000000042 2026-01-31T12:00:00.123Z     12.345 observe        layer   17 block      123 experts
constexpr std::size_t kLineBytes = 128;
constexpr std::size_t kRecordBytes = kLineBytes * static_cast<std::size_t>(kKept + 1);
struct Column {
  std::size_t begin, width;
};
constexpr Column kCount{0, 12}, kDate{13, 24}, kSeconds{38, 10}, kPhase{49, 14}, kLayer{70, 4}, kBlock{81, 8},
    kWhat{90, kLineBytes - 1 - 90};

/// One line, built in place: fmt would take longer than what is noted.
class Line {
 public:
  Line() {
    text_.fill(' ');
    text_.back() = '\n';
  }

  void put(Column column, std::string_view text) {
    std::memcpy(text_.data() + column.begin, text.data(), std::min(text.size(), column.width));
  }

  /// Flush right; the digits that fit.
  void put(Column column, std::int64_t value, char fill = ' ') {
    std::size_t at = column.begin + column.width;
    for (; at > column.begin; value /= 10) {
      text_[--at] = static_cast<char>('0' + value % 10);
      if (value < 10) break;
    }
    while (at > column.begin) text_[--at] = fill;
  }

  const char* data() const { return text_.data(); }

 private:
  std::array<char, kLineBytes> text_;
};

std::int64_t nanoseconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::int64_t{1'000'000'000} * time.tv_sec + time.tv_nsec;
}

/// "2026-01-31T12:00:00." of a second since 1970.
std::array<char, 20> date_of(std::time_t second) {
  std::tm utc{};
  gmtime_r(&second, &utc);
  std::array<char, 20> text{};
  fmt::format_to_n(text.data(), text.size(), "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.", utc.tm_year + 1900, utc.tm_mon + 1,
                   utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  return text;
}

/// Of one process; guarded by a mutex because a watching thread reads it.
class Record {
 public:
  void keep_in(const std::filesystem::path& file);
  std::filesystem::path keep_in_memory();

  void phase(std::string_view name) {
    const std::lock_guard lock(mutex_);
    phase_.assign(name);
    layer_ = block_ = -1;
    add("begin");
  }

  void note(const char* what, std::int64_t layer, std::int64_t block) {
    const std::lock_guard lock(mutex_);
    if (layer >= 0) layer_ = layer;
    if (block >= 0) block_ = block;
    add(what);
  }

  void moved() {
    moves_.fetch_add(1, std::memory_order_relaxed);
    last_time_.store(nanoseconds(CLOCK_MONOTONIC), std::memory_order_relaxed);
  }

  void beat() { beats_.fetch_add(1, std::memory_order_relaxed); }

  Place last() {
    const std::lock_guard lock(mutex_);
    const std::int64_t ago = nanoseconds(CLOCK_MONOTONIC) - last_time_.load(std::memory_order_relaxed);
    Place place;
    place.count = count_;
    place.moves = moves_.load(std::memory_order_relaxed);
    place.beats = beats_.load(std::memory_order_relaxed);
    place.phase = phase_;
    place.what = what_;
    place.layer = layer_;
    place.block = block_;
    place.seconds_ago = std::max(0.0, 1e-9 * static_cast<double>(ago));
    return place;
  }

 private:
  void add(const char* what) {
    what_ = what;
    const std::int64_t now = nanoseconds(CLOCK_MONOTONIC);
    last_time_.store(now, std::memory_order_relaxed);
    const std::int64_t utc = nanoseconds(CLOCK_REALTIME);
    if (utc / 1'000'000'000 != date_second_) {
      date_second_ = utc / 1'000'000'000;
      date_ = date_of(date_second_);
    }

    Line line;
    line.put(kCount, ++count_, '0');
    line.put(kDate, std::string_view(date_.data(), date_.size()));
    line.put({kDate.begin + date_.size(), 3}, utc / 1'000'000 % 1000, '0');
    line.put({kDate.begin + kDate.width - 1, 1}, "Z");
    const std::int64_t milliseconds = (now - start_) / 1'000'000;
    line.put({kSeconds.begin, kSeconds.width - 4}, milliseconds / 1000);
    line.put({kSeconds.begin + kSeconds.width - 4, 1}, ".");
    line.put({kSeconds.begin + kSeconds.width - 3, 3}, milliseconds % 1000, '0');
    line.put(kPhase, phase_);
    if (layer_ >= 0) {
      line.put({kLayer.begin - 6, 5}, "layer");
      line.put(kLayer, layer_);
    }
    if (block_ >= 0) {
      line.put({kBlock.begin - 6, 5}, "block");
      line.put(kBlock, block_);
    }
    line.put(kWhat, what);
    std::memcpy(lines_ + kLineBytes * static_cast<std::size_t>(1 + (count_ - 1) % kKept), line.data(), kLineBytes);
  }

  /// The line above the operations.
  void head(const std::string& name) {
    Line line;
    line.put(kCount, 0, '0');
    line.put({kDate.begin, kLineBytes - 1 - kDate.begin},
             fmt::format("{}, host {}, process {}", name, host_name(), getpid()));
    std::memcpy(lines_, line.data(), kLineBytes);
  }

  void move_to(char* mapped) {
    if (memory_ == nullptr) ::munmap(lines_, kRecordBytes);
    memory_.reset();
    lines_ = mapped;
  }

  static std::unique_ptr<char[]> blank() {
    auto lines = std::make_unique<char[]>(kRecordBytes);
    for (std::size_t at = 0; at < kRecordBytes; at += kLineBytes) std::memcpy(&lines[at], Line().data(), kLineBytes);
    return lines;
  }

  std::mutex mutex_;
  const std::int64_t start_ = nanoseconds(CLOCK_MONOTONIC);
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> moves_ = 0;
  std::atomic<std::int64_t> beats_ = 0;
  std::atomic<std::int64_t> last_time_ = start_;
  std::string phase_ = "start";
  const char* what_ = "";
  std::int64_t layer_ = -1, block_ = -1;
  std::time_t date_second_ = -1;
  std::array<char, 20> date_{};
  std::unique_ptr<char[]> memory_ = blank();
  char* lines_ = memory_.get();  // memory_, or the mapped file
};

Record& record() {
  static Record the_record;
  return the_record;
}

/// Maps an empty file, which gets these bytes. They are written first: a page of a file that turns out not to fit on
/// the disk would end the process when it is touched. @return null, with errno set, when that fails
char* map_record(int descriptor, const char* bytes) {
  const ssize_t written = ::write(descriptor, bytes, kRecordBytes);
  if (written != static_cast<ssize_t>(kRecordBytes)) {
    if (written >= 0) errno = ENOSPC;
    return nullptr;
  }
  void* mapped = ::mmap(nullptr, kRecordBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  return mapped == MAP_FAILED ? nullptr : static_cast<char*>(mapped);
}

void Record::keep_in(const std::filesystem::path& file) {
  const std::lock_guard lock(mutex_);
  head(file.stem().string());
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  char* const mapped = descriptor < 0 ? nullptr : map_record(descriptor, lines_);
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (mapped == nullptr) {
    fail(ExitCode::io, "{}: the record of operations cannot be made: {}", file.string(), std::strerror(error));
  }
  move_to(mapped);
}

std::filesystem::path Record::keep_in_memory() {
  const std::lock_guard lock(mutex_);
  head("record");
  const int descriptor = ::memfd_create("operations", MFD_CLOEXEC);
  if (descriptor < 0) return {};
  char* const mapped = map_record(descriptor, lines_);
  if (mapped == nullptr) {
    ::close(descriptor);
    return {};
  }
  move_to(mapped);
  return fmt::format("/proc/{}/fd/{}", getpid(), descriptor);  // stays open, for others to open
}

/// A column of a line, without the blanks around.
std::string_view field(const std::string& line, Column column) {
  std::string_view text = std::string_view(line).substr(column.begin, column.width);
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

std::int64_t number(std::string_view text) {
  std::int64_t value = -1;
  return std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc() ? value : -1;
}

}  // namespace

std::string text_of(const Place& place) {
  std::string text = place.phase;
  if (place.layer >= 0) text += fmt::format(", layer {}", place.layer);
  if (place.block >= 0) text += fmt::format(", block {}", place.block);
  text += ": " + place.what;
  if (place.seconds_ago >= 0) text += fmt::format(", {:.1f} s ago", place.seconds_ago);
  return text;
}

void keep_in(const std::filesystem::path& file) { record().keep_in(file); }

std::filesystem::path keep_in_memory() { return record().keep_in_memory(); }

std::optional<Place> last_in(const std::filesystem::path& file) {
  std::ifstream lines(file);
  Place last;
  for (std::string line; std::getline(lines, line);) {
    if (line.size() != kLineBytes - 1) continue;
    const std::int64_t count = number(field(line, kCount));
    if (count <= last.count) continue;
    last.count = count;
    last.phase = field(line, kPhase);
    last.what = field(line, kWhat);
    last.layer = number(field(line, kLayer));
    last.block = number(field(line, kBlock));
  }
  if (last.count == 0) return std::nullopt;
  return last;
}

void phase(std::string_view name) { record().phase(name); }

void note(const char* what, std::int64_t layer, std::int64_t block) { record().note(what, layer, block); }

void moved() { record().moved(); }

void beat() { record().beat(); }

Place last() { return record().last(); }

}  // namespace reap::operations
