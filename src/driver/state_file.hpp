#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "driver/saliency_file.hpp"
#include "shard/input_file.hpp"
#include "shard/snapshot.hpp"

namespace reap {

/// Where the hidden states of a block inside the model lie: [rows, hidden] float32 in hidden_file_name(file).
struct HeldRecord {
  std::int64_t block = 0;
  std::int64_t file = 0;
  std::int64_t offset = 0;  // bytes
  std::int64_t rows = 0;
  std::string digest;  // xxh3-128 hex
};

/// What one generation of a state says (docs/format/state.md).
struct State {
  SaliencyInfo info;
  std::int64_t hidden = 0;         // width of the hidden states
  std::vector<std::int64_t> rows;  // [blocks] tokens
  Snapshot snapshot;
  std::vector<HeldRecord> held;  // by ascending block

  std::int64_t bytes(const HeldRecord& record) const;
};

/// "generation-000012"
std::string generation_name(std::int64_t generation);

/// The generations that a state's folder holds, ascending, whole or not; none when there is no folder.
/// @param suffix  what follows their name
/// @throws Error(io)
std::vector<std::int64_t> list_generations(const std::filesystem::path& folder, std::string_view suffix = "");

/// "hidden-0003.f32"
std::string hidden_file_name(std::int64_t file);

/// Blocks, table and held blocks agree with each other. @param what  names the state in errors
/// @throws Error(bad_input)
void check_state(const std::string& what, const State& state);

/// Writes state.h5 and its checksum, durably, into the folder of a generation that is being made.
/// @throws Error(io)
void write_state(const std::filesystem::path& generation, const State& state);

/// Reads what a generation says. The checksum is compared before anything else looks at state.h5, then every invariant
/// is checked but for the digests of the hidden states.
/// @throws Error(bad_input) when anything is damaged, Error(io)
State read_state(const std::filesystem::path& generation);

/// The files with hidden states of a generation, by file number; they can be read from even when the generation is
/// removed.
class HiddenFiles {
 public:
  /// @throws Error(bad_input) when one is missing or shorter than `state` says
  HiddenFiles(const std::filesystem::path& generation, const State& state);

  /// Reads the hidden states of a block. @throws Error(bad_input) when their digest is another, Error(io)
  void read(const State& state, const HeldRecord& record, float* x) const;

 private:
  const InputFile& file(std::int64_t number) const;
  std::vector<std::int64_t> numbers_;  // ascending
  std::vector<InputFile> files_;       // beside them
};

}  // namespace reap
