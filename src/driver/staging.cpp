#include "driver/staging.hpp"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "driver/atomic_file.hpp"
#include "driver/manifest.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

fs::path final_name(const fs::path& output) {
  fs::path path = fs::absolute(output).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "out/"
  return path;
}

fs::path sibling(const fs::path& output, const char* suffix) { return fs::path(output).concat(suffix); }

bool is_there(const fs::path& path) {
  std::error_code ignored;  // what cannot be looked at is there, and an error when it is touched
  return fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
}

bool contains(const fs::path& directory, const fs::path& path) {
  return std::mismatch(directory.begin(), directory.end(), path.begin(), path.end()).first == directory.end();
}

void rename_directory(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail(ExitCode::io, "{}: cannot be renamed to {}: {}", from.string(), to.string(), error.message());
}

void remove_directory(const fs::path& directory) {
  std::error_code error;
  fs::remove_all(directory, error);
  if (error) fail(ExitCode::io, "{}: cannot be removed: {}", directory.string(), error.message());
}

/// Overwriting deletes a whole directory: a mistyped name must not cost more than a pruned model.
void check_replaceable(const fs::path& output) {
  std::error_code error;
  const bool directory = fs::is_directory(fs::symlink_status(output, error));
  const bool own = directory && (fs::is_empty(output, error) || is_there(output / kManifestName));
  if (!own || error) {
    fail(ExitCode::bad_input, "{}: exists and is not a pruned model ({} is not in it); it is not overwritten",
         output.string(), kManifestName);
  }
}

void check_space(const fs::path& directory, std::uint64_t bytes) {
  struct statvfs info {};
  if (::statvfs(directory.c_str(), &info) != 0) {
    fail(ExitCode::io, "{}: cannot ask for the free space: {}", directory.string(), std::strerror(errno));
  }
  const std::uint64_t available = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (available < bytes) {
    fail(ExitCode::io, "{}: the pruned model needs {} bytes, {} are free; free space or choose another disk",
         directory.string(), bytes, available);
  }
}

}  // namespace

Staging::Staging(const fs::path& output)
    : output_{final_name(output)},
      partial_{sibling(output_, ".reap-partial")},
      replaced_{sibling(output_, ".reap-replaced")} {}

void Staging::check(const fs::path& source, bool overwrite) const {
  const fs::path real_source = fs::weakly_canonical(source);
  const fs::path real_output = fs::weakly_canonical(output_);
  if (contains(real_source, real_output) || contains(real_output, real_source)) {
    fail(ExitCode::bad_input, "{}: is the source, in it or around it ({}); choose a directory outside",
         output_.string(), source.string());
  }
  if (!is_there(output_)) return;
  if (!overwrite) fail(ExitCode::bad_input, "{}: exists; move it away or give --overwrite", output_.string());
  check_replaceable(output_);
}

void Staging::create(const fs::path& source, std::uint64_t bytes, bool overwrite) const {
  std::error_code error;
  fs::create_directories(output_.parent_path(), error);
  if (error) fail(ExitCode::io, "{}: cannot be made: {}", output_.parent_path().string(), error.message());
  recover();
  check(source, overwrite);
  check_space(output_.parent_path(), bytes);
  fs::create_directory(partial_, error);
  if (error) fail(ExitCode::io, "{}: cannot be made: {}", partial_.string(), error.message());
}

void Staging::recover() const {
  remove_directory(partial_);
  if (!is_there(replaced_)) return;
  if (is_there(output_)) {
    remove_directory(replaced_);  // the new one got its name; only this was left to do
  } else {
    rename_directory(replaced_, output_);
  }
}

void Staging::publish() const {
  sync_directory(partial_);
  const bool replace = is_there(output_);
  if (replace) rename_directory(output_, replaced_);
  try {
    rename_directory(partial_, output_);
  } catch (...) {
    std::error_code ignored;
    if (replace) fs::rename(replaced_, output_, ignored);
    throw;
  }
  sync_directory(output_.parent_path());
  if (replace) remove_directory(replaced_);
}

void Staging::discard() const noexcept {
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
}

}  // namespace reap
