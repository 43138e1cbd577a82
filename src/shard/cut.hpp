#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "shard/placement.hpp"
#include "shard/pulse.hpp"

namespace reap {

/// How the ranks of a pass agree to stand still between two operations, all at once, while some are far ahead of
/// others: a cut, at which the state of the pass can be saved. An operation is one block, or one block of each column
/// of an expert group, through one layer; the ranks of such a group count the same operations.
///
/// Rank 0 asks all ranks to hold; each answers how many operations it has begun and begins no further one; rank 0 tells
/// each expert group the largest number that one of its ranks has begun; a rank that has done so many is at the cut.
/// All of the group can get there without help from ranks that stand still, because none begins an operation before
/// all of them have what they need for it. Nothing is drained: blocks between stages stay where they are.
class Cut {
 public:
  struct Wishes {
    std::function<bool()> save;  // rank 0: time for the next one; empty = never
    std::function<bool()> stop;  // any rank: and then end; empty = never
  };

  /// @param grid   of the ranks of `pulse`
  Cut(Pulse& pulse, const Grid& grid, int rank, Wishes wishes);

  /// Moves the agreement on, and the pulse. To be called while waiting.
  void poll();

  /// Whether this rank may begin an operation now.
  bool open() const { return !holding_ || begun_ < target_; }
  /// It begins one: from here to its end no cut is possible.
  void begin() { ++begun_; }
  /// Between operations: whether this rank is at the cut. When all ranks have saved their state, each calls go_on().
  bool reached() const { return holding_ && told_ && begun_ >= target_; }
  bool stops() const { return stops_; }  // at the cut: whether to end
  void go_on();

  /// This rank has done all of its operations; cuts may still come.
  void finish() { finished_ = true; }
  /// All ranks have: no cut comes any more.
  bool over() const { return over_; }

 private:
  enum class Order : std::int64_t { none, hold, go, end };
  void conduct();
  void obey();

  Pulse& pulse_;
  Grid grid_;
  int rank_, ranks_;
  Wishes wishes_;

  std::int64_t cuts_ = 0;  // behind us
  std::int64_t begun_ = 0, target_ = 0;
  bool holding_ = false, told_ = false, stops_ = false, finished_ = false, over_ = false;

  // Rank 0's part
  enum class Stage { idle, collecting, told, ended } stage_ = Stage::idle;
  bool stop_wanted_ = false;
  std::chrono::steady_clock::time_point next_look_;
};

}  // namespace reap
