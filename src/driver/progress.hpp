#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "driver/log.hpp"

namespace reap {

/// How far the phase has come. Rank 0 speaks for all: work is dealt out evenly, so its share stands for the whole.
///
/// On a terminal there is one live line; otherwise a line at most every 30 s, so that Slurm's logs stay short. Every
/// such tick, and the end of every phase, goes to the metrics file as a JSON object.
class Progress {
 public:
  /// @param metrics  appended to by rank 0; empty = none
  /// @throws Error(io) when the metrics file cannot be opened
  Progress(Log& log, int rank, const std::filesystem::path& metrics);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Begins a phase of `total` units over all ranks, of which this rank does `own`.
  /// @param unit        "tokens", "bytes": what is counted
  /// @param flops_unit  floating point operations per unit, 0 = not said
  void begin(std::string_view phase, std::string_view unit, std::int64_t total, std::int64_t own,
             double flops_unit = 0);
  /// This rank has done `units` more, in `steps` more steps (blocks).
  void advance(std::int64_t units, std::int64_t steps = 0);
  /// Ends the phase; logs its time and rate.
  void end();

  struct Phase {
    std::string name;
    std::string unit;
    std::int64_t units = 0;
    double seconds = 0;
  };
  /// The phases that have ended, for run_log.json.
  const std::vector<Phase>& phases() const { return phases_; }

 private:
  using Clock = std::chrono::steady_clock;
  double seconds() const;
  std::string line() const;
  void tick(bool last);
  void record(std::string_view event);

  Log& log_;
  bool speaks_;    // rank 0
  bool terminal_;  // stderr is one
  bool live_ = false;
  std::ofstream metrics_;
  std::vector<Phase> phases_;
  std::string phase_, unit_;
  std::int64_t total_ = 0, own_ = 0, done_ = 0, steps_ = 0;
  double flops_unit_ = 0;
  double cpu_started_ = 0;
  Clock::time_point started_, last_tick_;
};

/// "1.5 GB", "321 MB": decimal units, three digits.
std::string readable_bytes(std::int64_t bytes);
/// "2 h 05 min", "1 min 07 s", "4.2 s".
std::string readable_seconds(double seconds);

}  // namespace reap
