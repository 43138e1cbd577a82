#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace reap {

/// The calibration samples as the forward pass needs them. Offsets and domains are in memory on every rank; tokens
/// are read when a block is due, by the ranks that hold the first layers.
struct Samples {
  std::vector<std::int64_t> offsets;   // [samples + 1], offsets[0] = 0
  std::vector<std::uint8_t> domain;    // [samples]
  std::int64_t domains = 1;
  std::function<std::vector<std::int32_t>(std::int64_t begin, std::int64_t end)> read_tokens;

  std::int64_t samples() const { return static_cast<std::int64_t>(domain.size()); }
  std::int64_t tokens() const { return offsets.back(); }
  std::int64_t groups() const { return domains * 2; }
  /// (domain, half): half = sample index mod 2.
  std::int32_t group(std::int64_t sample) const { return domain[static_cast<std::size_t>(sample)] * 2 + static_cast<std::int32_t>(sample % 2); }
};

/// A block: whole consecutive samples [first, last), at most block_tokens tokens; a longer sample is a block alone.
struct Block {
  std::int64_t index;
  std::int64_t first, last;   // samples
  std::int64_t begin, end;    // tokens
  std::int64_t rows() const { return end - begin; }
};

/// The partition of the samples into blocks: a function of offsets and block_tokens only, never of the ranks.
std::vector<Block> make_blocks(const std::vector<std::int64_t>& offsets, std::int64_t block_tokens);

}  // namespace reap
