#include "shard/dispatch.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace reap {
namespace {

// 7 experts on 3 shards: {0, 1}, {2, 3}, {4, 5, 6}. Top-3.
constexpr std::int64_t kExperts = 7;
constexpr std::int64_t kTopK = 3;
constexpr int kShards = 3;
const std::vector<std::int32_t> kExpert{
    0, 1, 5,  // row 0: own, own, shard 2
    2, 3, 4,  // row 1: shard 1 twice, shard 2
    4, 5, 6,  // row 2: shard 2 three times
    0, 2, 6,  // row 3: one each
};

std::vector<std::pair<int, int>> pairs(const std::vector<SlotTag>& tags) {
  std::vector<std::pair<int, int>> all;
  for (const SlotTag& tag : tags) all.emplace_back(tag.row, tag.expert);
  return all;
}

TEST(Dispatch, SendsEachRowOncePerShard) {
  const std::vector<Parcel> parcels = make_parcels(kExpert, kTopK, kExperts, kShards, 0);
  ASSERT_EQ(parcels.size(), 3U);
  EXPECT_TRUE(parcels[0].rows.empty());  // own slots stay
  EXPECT_TRUE(parcels[0].slots.empty());
  EXPECT_EQ(parcels[1].rows, (std::vector<std::int32_t>{1, 3}));
  EXPECT_EQ(pairs(parcels[1].slots), (std::vector<std::pair<int, int>>{{0, 2}, {0, 3}, {1, 2}}));
  EXPECT_EQ(parcels[2].rows, (std::vector<std::int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(pairs(parcels[2].slots),
            (std::vector<std::pair<int, int>>{{0, 5}, {1, 4}, {2, 4}, {2, 5}, {2, 6}, {3, 6}}));
}

TEST(Dispatch, ReturnedSlotsFollowTheParcels) {
  for (int self = 0; self < kShards; ++self) {
    const std::vector<Parcel> parcels = make_parcels(kExpert, kTopK, kExperts, kShards, self);
    const Range own = expert_range(kExperts, kShards, self);
    std::vector<std::int32_t> position(kExpert.size(), -1);
    std::int32_t computed = 0;
    for (std::size_t slot = 0; slot < kExpert.size(); ++slot) {
      if (own.holds(kExpert[slot])) position[slot] = computed++;
    }
    place_returned(kExpert, parcels, kExperts, computed, position);

    // Walk the returned outputs in the order they arrive, and find the slot that each belongs to.
    std::int32_t place = computed;
    for (const Parcel& parcel : parcels) {
      for (const SlotTag& tag : parcel.slots) {
        const std::int64_t row = parcel.rows[static_cast<std::size_t>(tag.row)];
        const auto found = std::find(position.begin(), position.end(), place++);
        ASSERT_NE(found, position.end());
        EXPECT_EQ((found - position.begin()) / kTopK, row);
        EXPECT_EQ(kExpert[static_cast<std::size_t>(found - position.begin())], tag.expert);
      }
    }
    EXPECT_EQ(place, static_cast<std::int32_t>(kExpert.size()));
  }
}

TEST(Dispatch, NoRowsMakeEmptyParcels) {
  const std::vector<Parcel> parcels = make_parcels({}, kTopK, kExperts, kShards, 1);
  ASSERT_EQ(parcels.size(), 3U);
  for (const Parcel& parcel : parcels) EXPECT_TRUE(parcel.rows.empty() && parcel.slots.empty());
  place_returned({}, parcels, kExperts, 0, {});
}

}  // namespace
}  // namespace reap
