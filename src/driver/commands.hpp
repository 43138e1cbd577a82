#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "driver/log.hpp"
#include "driver/options.hpp"
#include "driver/progress.hpp"
#include "shard/comm.hpp"
#include "shard/pulse.hpp"

namespace reap {

/// What every command works with. One per rank.
struct Job {
  const Comm& world;
  const Options& options;
  Log& log;
  Progress& progress;
  Pulse& pulse;
};

/// A command of the program.
struct Command {
  std::string_view name;
  std::string_view summary;  // one line
  std::string_view details;  // what it needs and an example, for its --help
  std::string_view takes;    // its options, besides those of every command, separated by blanks
  void (*run)(Job& job);     // collective; throws Error
};

const std::vector<Command>& commands();
/// The command of that name, or null.
const Command* find_command(std::string_view name);

}  // namespace reap
