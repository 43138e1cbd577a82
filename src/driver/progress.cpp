#include "driver/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "kernels/check.hpp"
#include "shard/json.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

constexpr std::chrono::milliseconds kLiveInterval{200};
constexpr std::chrono::seconds kLogInterval{30};

/// Processor time of this process so far, all threads.
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// A rate or amount with its unit: bytes scaled, anything else as it is.
std::string amount(double value, std::string_view unit) {
  if (unit == "bytes") return readable_bytes(static_cast<std::int64_t>(value));
  return fmt::format("{:.0f} {}", value, unit);
}

}  // namespace

std::string readable_bytes(std::int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 99.95 ? 0 : (value >= 9.995 ? 1 : 2), kUnits[unit]);
}

std::string readable_seconds(double seconds) {
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const std::int64_t whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02d} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02d} min", whole / 3600, whole / 60 % 60);
}

Progress::Progress(Log& log, int rank, const std::filesystem::path& metrics)
    : log_{log}, speaks_{rank == 0}, terminal_{isatty(STDERR_FILENO) == 1} {
  if (!speaks_ || metrics.empty()) return;
  metrics_.open(metrics, std::ios::app);
  if (!metrics_) fail(ExitCode::io, "{}: the metrics file cannot be opened", metrics.string());
}

Progress::~Progress() {
  if (live_) std::fputc('\n', stderr);  // an error message follows: leave the live line to itself
}

void Progress::begin(std::string_view phase, std::string_view unit, std::int64_t total, std::int64_t own,
                     double flops_unit) {
  operations::phase(phase);
  phase_ = phase;
  unit_ = unit;
  total_ = total;
  own_ = own;
  flops_unit_ = flops_unit;
  done_ = steps_ = 0;
  started_ = last_tick_ = Clock::now();
  cpu_started_ = cpu_seconds();
}

void Progress::advance(std::int64_t units, std::int64_t steps) {
  operations::moved();
  done_ += units;
  steps_ += steps;
  if (!speaks_) return;
  const auto interval = terminal_ ? std::chrono::duration_cast<Clock::duration>(kLiveInterval)
                                  : std::chrono::duration_cast<Clock::duration>(kLogInterval);
  if (Clock::now() - last_tick_ >= interval) tick(false);
}

void Progress::end() {
  operations::phase("after " + phase_);
  phases_.push_back({phase_, unit_, total_, seconds()});
  if (!speaks_) return;
  done_ = own_;
  tick(true);
}

double Progress::seconds() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

std::string Progress::line() const {
  const double elapsed = std::max(seconds(), 1e-9);
  const double share = own_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(own_)) : 1.0;
  const double rate = share * static_cast<double>(total_) / elapsed;
  std::string text = fmt::format("{}: {:.0f} % of {}", phase_, 100 * share, amount(static_cast<double>(total_), unit_));
  if (steps_ > 0) text += fmt::format(", {} blocks of rank 0", steps_);
  text += fmt::format(", {}/s", amount(rate, unit_));
  if (flops_unit_ > 0) text += fmt::format(", {:.1f} GFLOP/s", rate * flops_unit_ * 1e-9);
  if (share < 1 && share > 0) text += ", " + readable_seconds(elapsed * (1 - share) / share) + " left";
  if (share >= 1) text += ", " + readable_seconds(elapsed);
  return text;
}

void Progress::tick(bool last) {
  last_tick_ = Clock::now();
  const std::string text = line();
  if (terminal_ && live_) std::fputs("\r\x1b[K", stderr);
  live_ = terminal_ && !last;
  if (live_) {
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
    log_.file_only(text);
  } else {
    log_.info(text);
  }
  record(last ? "phase_end" : "progress");
}

void Progress::record(std::string_view event) {
  if (!metrics_.is_open()) return;
  const double elapsed = std::max(seconds(), 1e-9);
  const double share = own_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(own_)) : 1.0;
  const double rate = share * static_cast<double>(total_) / elapsed;
  Json object;
  object["event"] = event;
  object["phase"] = phase_;
  object["unit"] = unit_;
  object["total"] = total_;
  object["share"] = share;
  object["seconds"] = elapsed;
  object["cpu_seconds"] = cpu_seconds() - cpu_started_;
  object["rate"] = rate;
  if (flops_unit_ > 0) object["gflops"] = rate * flops_unit_ * 1e-9;
  metrics_ << object.dump() << std::endl;  // flushed: a reader follows the file while the job runs
}

}  // namespace reap
