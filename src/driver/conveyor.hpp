#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace reap {

/// Takes a stream of items through stages that work at the same time, each on a thread of its own (the last one on the
/// caller's): while one item is written the next is hashed and the one after that read. Items live in `slots` places
/// owned by the caller, used in turn; every stage sees them in order. Memory is bounded by the places.
///
/// @param slots   places for items, at least 1
/// @param supply  fills place `slot` with the next item; false when there is none
/// @param stages  what happens to an item, in order; at least one
/// @throws what a stage throws; the others have ended by then
void run_conveyor(std::size_t slots, const std::function<bool(std::size_t slot)>& supply,
                  std::span<const std::function<void(std::size_t slot)>> stages);

}  // namespace reap
