#include "shard/dispatch.hpp"

#include "kernels/check.hpp"

namespace reap {
namespace {

/// The shard that owns each expert.
std::vector<int> owners(std::int64_t experts, int ep) {
  std::vector<int> owner(static_cast<std::size_t>(experts));
  for (int shard = 0; shard < ep; ++shard) {
    const Range range = expert_range(experts, ep, shard);
    for (std::int64_t expert = range.begin; expert < range.end; ++expert) {
      owner[static_cast<std::size_t>(expert)] = shard;
    }
  }
  return owner;
}

}  // namespace

std::vector<Parcel> make_parcels(std::span<const std::int32_t> expert, std::int64_t top_k, std::int64_t experts, int ep,
                                 int self) {
  const std::vector<int> owner = owners(experts, ep);
  std::vector<Parcel> parcels(static_cast<std::size_t>(ep));
  for (std::size_t slot = 0; slot < expert.size(); ++slot) {
    const int shard = owner[static_cast<std::size_t>(expert[slot])];
    if (shard == self) continue;
    Parcel& parcel = parcels[static_cast<std::size_t>(shard)];
    const auto row = static_cast<std::int32_t>(slot / static_cast<std::size_t>(top_k));
    if (parcel.rows.empty() || parcel.rows.back() != row) parcel.rows.push_back(row);
    parcel.slots.push_back({static_cast<std::int32_t>(parcel.rows.size() - 1), expert[slot]});
  }
  return parcels;
}

void place_returned(std::span<const std::int32_t> expert, const std::vector<Parcel>& parcels, std::int64_t experts,
                    std::int64_t first, std::span<std::int32_t> position) {
  const std::vector<int> owner = owners(experts, static_cast<int>(parcels.size()));
  std::vector<std::int64_t> next(parcels.size());
  for (std::size_t shard = 0; shard < parcels.size(); ++shard) {
    next[shard] = first;
    first += static_cast<std::int64_t>(parcels[shard].slots.size());
  }
  for (std::size_t slot = 0; slot < expert.size(); ++slot) {
    if (position[slot] >= 0) continue;
    position[slot] =
        static_cast<std::int32_t>(next[static_cast<std::size_t>(owner[static_cast<std::size_t>(expert[slot])])]++);
  }
}

}  // namespace reap
