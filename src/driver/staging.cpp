#include "driver/staging.hpp"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "driver/atomic_file.hpp"
#include "driver/manifest.hpp"
#include "driver/unfinished_output.hpp"
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

/// Of the regular files of a directory, without folders in it; 0 when there is none.
std::uint64_t bytes_in(const fs::path& directory) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    const std::uint64_t size = entry->is_regular_file(ignored) ? entry->file_size(ignored) : 0;
    if (!ignored) bytes += size;
  }
  return bytes;
}

void check_space(const fs::path& directory, std::uint64_t bytes) {
  struct statvfs info {};
  if (::statvfs(directory.c_str(), &info) != 0) {
    fail(ExitCode::io, "{}: cannot ask for the free space: {}", directory.string(), std::strerror(errno));
  }
  const std::uint64_t available = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (available < bytes) {
    fail(ExitCode::io, "{}: the pruned model needs {} more bytes, {} are free; free space or choose another disk",
         directory.string(), bytes, available);
  }
}

}  // namespace

Staging::Staging(const fs::path& output)
    : output_{final_name(output)},
      partial_{sibling(output_, ".reap-partial")},
      replaced_{sibling(output_, ".reap-replaced")} {}

bool Staging::exists() const { return is_there(output_); }

void Staging::check_place(const fs::path& source) const {
  const fs::path real_source = fs::weakly_canonical(source);
  const fs::path real_output = fs::weakly_canonical(output_);
  if (contains(real_source, real_output) || contains(real_output, real_source)) {
    fail(ExitCode::bad_input, "{}: is the source, in it or around it ({}); choose a directory outside",
         output_.string(), source.string());
  }
}

void Staging::check(const fs::path& source, bool overwrite) const {
  check_place(source);
  if (!exists()) return;
  if (!overwrite) fail(ExitCode::bad_input, "{}: exists; move it away or give --overwrite", output_.string());
  check_replaceable(output_);
}

void Staging::create(const fs::path& source, std::uint64_t bytes, bool overwrite, const std::string& stamp) const {
  std::error_code error;
  fs::create_directories(output_.parent_path(), error);
  if (error) fail(ExitCode::io, "{}: cannot be made: {}", output_.parent_path().string(), error.message());
  recover();
  check(source, overwrite);
  const UnfinishedOutput unfinished(partial_);
  if (!unfinished.has_stamp(stamp)) remove_directory(partial_);
  const std::uint64_t there = bytes_in(partial_);  // it is kept, or makes room
  check_space(output_.parent_path(), bytes - std::min(bytes, there));
  if (!fs::create_directory(partial_, error) && !error) return;
  if (error) fail(ExitCode::io, "{}: cannot be made: {}", partial_.string(), error.message());
  try {
    unfinished.write_stamp(stamp);
  } catch (...) {
    discard();
    throw;
  }
}

void Staging::recover() const {
  if (!is_there(replaced_)) return;
  if (is_there(output_)) {
    remove_directory(replaced_);  // the new one got its name; only this was left to do
  } else {
    rename_directory(replaced_, output_);
  }
}

void Staging::publish() const {
  UnfinishedOutput(partial_).remove();
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
