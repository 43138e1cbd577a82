#include "driver/share_out.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

namespace reap {

std::vector<std::size_t> share_out(std::span<const std::uint64_t> bytes, int ranks, int rank) {
  std::vector<std::size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });

  using Load = std::pair<std::uint64_t, int>;  // bytes, rank: the least loaded on top, of equals the lowest rank
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int r = 0; r < ranks; ++r) loads.emplace(0, r);
  std::vector<std::size_t> own;
  for (const std::size_t piece : order) {
    const auto [load, least] = loads.top();
    loads.pop();
    loads.emplace(load + bytes[piece], least);
    if (least == rank) own.push_back(piece);
  }
  std::sort(own.begin(), own.end());
  return own;
}

}  // namespace reap
