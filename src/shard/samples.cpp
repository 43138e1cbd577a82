#include "shard/samples.hpp"

#include "kernels/check.hpp"

namespace reap {

std::vector<Block> make_blocks(const std::vector<std::int64_t>& offsets, std::int64_t block_tokens) {
  REAP_CHECK(!offsets.empty() && offsets.front() == 0, "sample offsets do not start at 0");
  REAP_CHECK(block_tokens > 0, "block_tokens is {}", block_tokens);
  const auto samples = static_cast<std::int64_t>(offsets.size()) - 1;
  const auto offset = [&](std::int64_t sample) { return offsets[static_cast<std::size_t>(sample)]; };

  std::vector<Block> blocks;
  for (std::int64_t first = 0; first < samples;) {
    std::int64_t last = first + 1;
    while (last < samples && offset(last + 1) - offset(first) <= block_tokens) ++last;
    blocks.push_back({.index = static_cast<std::int64_t>(blocks.size()),
                      .first = first,
                      .last = last,
                      .begin = offset(first),
                      .end = offset(last)});
    first = last;
  }
  return blocks;
}

}  // namespace reap
