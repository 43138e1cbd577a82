#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "driver/saliency_file.hpp"
#include "driver/state_file.hpp"
#include "shard/comm.hpp"
#include "shard/snapshot.hpp"

namespace reap {

/// The saved state of a calibration pass: a folder with the last two generations (docs/format/state.md). A generation
/// is a folder `generation-000012/` with state.h5 (tables, by rank 0) and hidden-0003.f32 (hidden states, by each rank
/// that has some), made under another name, synced, and given its name when it is whole.
class StateFolder {
 public:
  /// @param hidden  width of the hidden states
  /// @param layers  of the model
  StateFolder(std::filesystem::path folder, SaliencyInfo info, std::vector<Block> blocks, std::int64_t hidden,
              std::int64_t layers);

  /// The newest whole generation, checksums verified before anything is taken from it; the one before where the newest
  /// is damaged (the log text says so); nothing when there is none. Its files stay open for read_hidden, also when
  /// later commits remove them. Makes the folder, so that a place that cannot be written to is known early. Collective.
  /// @throws SharedError(bad_input) when the state is of another identity, naming the difference
  std::optional<StartingPoint> all_load(const Comm& world, std::string& log_text);

  /// Commits a generation and removes all but this and the last good one before it. Collective.
  /// @throws SharedError(io); what was there before is untouched then
  /// @param snapshot  of the job; only rank 0's is looked at
  /// @param own       hidden states that this rank has
  void all_commit(const Comm& world, const Snapshot& snapshot, const std::vector<HeldBlock>& own);

  /// Removes the folder's generations: the pass is complete and its result is on the disk. Collective.
  /// @throws SharedError(io)
  void all_remove(const Comm& world);

 private:
  bool fits(const State& state) const;
  std::filesystem::path folder_;
  SaliencyInfo info_;
  std::vector<Block> blocks_;
  std::int64_t hidden_, layers_;
  std::int64_t generation_ = 0;  // the last good one: of the last commit or load
};

}  // namespace reap
