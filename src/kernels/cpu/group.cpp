#include <algorithm>

#include "kernels/cpu/ops.hpp"

namespace reap::cpu {

// Two passes over a few hundred KB: not worth threads.
void group_slots(const std::int32_t* expert, std::int64_t slots, std::int32_t first, std::int64_t count,
                 std::int32_t* order, std::int32_t* position, std::int64_t* start) {
  const auto is_ours = [&](std::int64_t slot) { return expert[slot] >= first && expert[slot] < first + count; };
  std::fill(start, start + count + 1, 0);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    if (is_ours(slot)) ++start[expert[slot] - first + 1];
  }
  for (std::int64_t e = 0; e < count; ++e) start[e + 1] += start[e];

  std::vector<std::int64_t> next(start, start + count);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    position[slot] = -1;
    if (!is_ours(slot)) continue;
    const std::int64_t place = next[static_cast<std::size_t>(expert[slot] - first)]++;
    position[slot] = static_cast<std::int32_t>(place);
    order[place] = static_cast<std::int32_t>(slot);
  }
}

}  // namespace reap::cpu
