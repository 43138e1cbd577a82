#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "shard/comm.hpp"

namespace reap {

/// Small words between every rank and rank 0, all the time: they say that a rank is alive and where it is, and carry
/// what the ranks agree on while they work (shard/cut.hpp). Moves only inside beat(), which every rank calls between
/// its operations and while it waits; a beat with nothing due costs a look at the clock.
///
/// A job whose ranks do not all answer within `timeout`, or none of which gets on with its work (operations::moved) for
/// that long, ends: beat() throws Error(peer) on rank 0 naming rank, host, phase, layer and block of the silent one; on
/// the others when rank 0 is silent.
class Pulse {
 public:
  using Words = std::array<std::int64_t, 4>;

  /// Collective. @param timeout  0 = for ever
  Pulse(const Comm& world, std::chrono::duration<double> timeout);
  ~Pulse();
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

  void beat();

  /// This rank's words for rank 0, from the next beat on; changed words leave with it, at once.
  void say(const Words& words);
  /// Rank 0: the words last heard from `rank` (its own: said). All zero at first.
  const Words& heard(int rank) const;
  /// Rank 0: its words for `rank`, from the next beat on, at once when changed.
  void order(int rank, const Words& words);
  /// The words that rank 0 last ordered this rank. All zero at first.
  const Words& ordered() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reap
