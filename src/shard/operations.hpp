#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace reap::operations {

/// The record of what this rank did last: the answer to where it was when it hung or was killed. One per process, kept
/// by its main thread; reading it and last() are open to other threads.

constexpr std::int64_t kKept = 1000;
constexpr const char* kEnd = "end";  // the phase of a process that ends by itself, whatever its exit code

/// Where a rank was.
struct Place {
  std::int64_t count = 0;               // operations so far; rises with every note
  std::int64_t moves = 0;               // rises with every moved()
  std::int64_t beats = 0;               // rises with every beat()
  std::string phase;                    // "load", "observe", "write", ...
  std::string what;                     // "attention", "wait for the stage before", ...
  std::int64_t layer = -1, block = -1;  // -1 = not said
  double seconds_ago = -1;              // since the last note or move; -1 = not known
};
/// "observe, layer 17, block 123: wait for the stage before, 12.3 s ago"
std::string text_of(const Place& place);

/// Keeps the record in `file` from now on, as kKept lines of text that are written round and round, under a line with
/// the file's stem, host and process; sorted, its lines are in order. The file is mapped memory: what was noted is in
/// it even when the process is killed. @throws Error(io)
void keep_in(const std::filesystem::path& file);

/// Keeps the record in memory that other processes of this user can open by the path returned, and keep open when this
/// one has ended. @return empty when the system has none: the record stays where it was
std::filesystem::path keep_in_memory();

/// The last place in the file of another process; nothing when there is no such file, or no operation in it.
std::optional<Place> last_in(const std::filesystem::path& file);

/// Begins a phase.
void phase(std::string_view name);

/// This operation begins now. Cheap enough for every step of a layer; allocates nothing.
/// @param what   a literal
/// @param layer  of the model; -1 = as before in this phase, so that a wait is named with the layer it is in
/// @param block  likewise
void note(const char* what, std::int64_t layer = -1, std::int64_t block = -1);

/// The operation noted last goes on: bytes were read, tensors copied. Open to any thread.
void moved();

/// The main thread is awake, though only waiting. Costs next to nothing.
void beat();

Place last();

}  // namespace reap::operations
