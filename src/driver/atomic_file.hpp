#pragma once

#include <filesystem>
#include <string_view>

namespace reap {

/// Writes a small file whole or not at all: temporary name beside it, write, fsync, rename, fsync of the directory.
/// Temporary files that killed processes have left of the same file are removed.
/// @throws Error(io) naming the file
void write_file_atomically(const std::filesystem::path& file, std::string_view text);

/// Makes a rename or creation in `directory` durable.
void sync_directory(const std::filesystem::path& directory);

}  // namespace reap
