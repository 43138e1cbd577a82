#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace reap {

/// Files that one rank reads and hashes at the same time: SHA-256 takes a core to itself at about 1.7 GB/s, less than
/// many disks.
constexpr std::size_t kFilesAtOnce = 4;

/// Which of the pieces of work are rank `rank`'s: the largest piece first, each goes to the rank with the least so far
/// (of equals the lowest). A function of its arguments alone, so every rank comes to the same division.
/// @return ascending indices into `bytes`
std::vector<std::size_t> share_out(std::span<const std::uint64_t> bytes, int ranks, int rank);

}  // namespace reap
