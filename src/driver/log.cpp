#include "driver/log.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "kernels/check.hpp"

namespace reap {

struct Log::Impl {
  std::unique_ptr<spdlog::logger> console;  // rank 0 only
  std::unique_ptr<spdlog::logger> file;     // with a log folder only

  void write(spdlog::level::level_enum level, const std::string& text) const {
    if (console) console->log(level, text);
    if (file) file->log(level, text);
  }
};

Log::Log(const std::filesystem::path& directory, int rank) : impl_{std::make_unique<Impl>()} {
  if (rank == 0) {
    impl_->console = std::make_unique<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_sink_st>());
    impl_->console->set_pattern("%H:%M:%S %v");
  }
  if (directory.empty()) return;
  const std::filesystem::path file = directory / fmt::format("rank-{:04d}.log", rank);
  try {
    std::filesystem::create_directories(directory);
    impl_->file =
        std::make_unique<spdlog::logger>("", std::make_shared<spdlog::sinks::basic_file_sink_st>(file.string()));
  } catch (const std::exception& e) {
    fail(ExitCode::io, "{}: the log file cannot be made: {}", file.string(), e.what());
  }
  impl_->file->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  impl_->file->flush_on(spdlog::level::info);
}

Log::~Log() = default;

void Log::info(const std::string& text) { impl_->write(spdlog::level::info, text); }

void Log::warn(const std::string& text) { impl_->write(spdlog::level::warn, "warning: " + text); }

void Log::file_only(const std::string& text) {
  if (impl_->file) impl_->file->info(text);
}

}  // namespace reap
