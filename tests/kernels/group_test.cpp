#include <random>

#include "backends.hpp"

namespace reap {
namespace {

using test::download;
using test::upload;

struct Grouped {
  std::vector<std::int32_t> order, position;
  std::vector<std::int64_t> start;
};

Grouped group(Backend& backend, const std::vector<std::int32_t>& expert, std::int32_t first, std::int64_t count) {
  const auto slots = static_cast<std::int64_t>(expert.size());
  const auto order = upload(backend, std::vector<std::int32_t>(expert.size(), -7));
  const auto position = upload(backend, std::vector<std::int32_t>(expert.size(), -7));
  std::vector<std::int64_t> start(static_cast<std::size_t>(count) + 1, -7);
  backend.group_slots(upload(backend, expert).data(), slots, first, count, order.data(), position.data(), start.data());
  return {download(backend, order), download(backend, position), start};
}

class GroupSlots : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(GroupSlots);

TEST_P(GroupSlots, ByHand) {
  const Grouped got = group(*backend, {2, 0, 9, 2, 1, 0}, 0, 3);
  EXPECT_EQ(got.start, (std::vector<std::int64_t>{0, 2, 3, 5}));
  EXPECT_EQ(got.position, (std::vector<std::int32_t>{3, 0, -1, 4, 2, 1}));
  EXPECT_EQ((std::vector<std::int32_t>(got.order.begin(), got.order.begin() + 5)),
            (std::vector<std::int32_t>{1, 5, 4, 0, 3}));
}

TEST_P(GroupSlots, OfNoSlotsOrNoExperts) {
  EXPECT_EQ(group(*backend, {}, 4, 2).start, (std::vector<std::int64_t>{0, 0, 0}));
  const Grouped none = group(*backend, {1, 2}, 0, 0);
  EXPECT_EQ(none.start, (std::vector<std::int64_t>{0}));
  EXPECT_EQ(none.position, (std::vector<std::int32_t>{-1, -1}));
}

TEST_P(GroupSlots, KeepsTheOrderOfSlotsWithinAnExpert) {
  std::mt19937 random(1);
  std::vector<std::int32_t> expert;
  for (int slot = 0; slot < 5000; ++slot) expert.push_back(static_cast<std::int32_t>(random() % 40));
  for (const auto& [first, count] : {std::pair<std::int32_t, std::int64_t>{0, 40}, {13, 9}, {39, 1}}) {
    const Grouped got = group(*backend, expert, first, count);
    std::int32_t place = 0;
    for (std::int64_t e = 0; e < count; ++e) {
      EXPECT_EQ(got.start[static_cast<std::size_t>(e)], place);
      for (std::size_t slot = 0; slot < expert.size(); ++slot) {
        if (expert[slot] != first + e) continue;
        ASSERT_EQ(got.order[static_cast<std::size_t>(place)], static_cast<std::int32_t>(slot));
        ASSERT_EQ(got.position[slot], place);
        ++place;
      }
    }
    EXPECT_EQ(got.start.back(), place);
    for (std::size_t slot = 0; slot < expert.size(); ++slot) {
      const bool is_other = expert[slot] < first || expert[slot] >= first + count;
      ASSERT_EQ(got.position[slot] == -1, is_other) << slot;
    }
  }
}

TEST_P(GroupSlots, KnowTheirRows) {
  for (const std::int32_t slots : {0, 1, 700}) {
    std::vector<std::int32_t> slot(static_cast<std::size_t>(slots));
    for (std::int32_t i = 0; i < slots; ++i) slot[static_cast<std::size_t>(i)] = (slots - 1 - i) * 3;
    for (const std::int32_t top_k : {1, 3, 8}) {
      const auto rows = upload(*backend, std::vector<std::int32_t>(slot.size(), -7));
      const auto from = upload(*backend, slot);
      backend->slot_rows(from.data(), slots, top_k, rows.data());
      const std::vector<std::int32_t> got = download(*backend, rows);
      for (std::size_t i = 0; i < slot.size(); ++i) ASSERT_EQ(got[i], slot[i] / top_k) << top_k;
    }
  }
}

}  // namespace
}  // namespace reap
