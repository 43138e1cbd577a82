#include "shard/exchange.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "mpi_device_comm.hpp"
#include "shard/link_device.hpp"
#include "shard/link_mpi.hpp"

namespace reap {
namespace {

constexpr std::int64_t kHidden = 3;
constexpr std::int64_t kTopK = 2;

Model model_of(std::int64_t experts) {
  Model model{};
  model.layers = 1;
  model.hidden = kHidden;
  model.router = {.experts = experts, .top_k = kTopK};
  return model;
}

/// Rows of a rank: none on rank 1, so that a rank without a block takes part.
std::int64_t rows_of(int rank) { return rank == 1 ? 0 : 4 + 3 * rank; }

float x_of(int rank, std::int64_t row, std::int64_t column) {
  return static_cast<float>(rank * 1000 + row * 10 + column);
}

/// Two experts for each row, ascending.
std::vector<std::int32_t> choices(int rank, std::int64_t experts) {
  std::vector<std::int32_t> expert;
  for (std::int64_t row = 0; row < rows_of(rank); ++row) {
    const std::int64_t a = (row + rank) % experts;
    const std::int64_t b = (a + 1 + row % (experts - 1)) % experts;  // never a
    expert.push_back(static_cast<std::int32_t>(std::min(a, b)));
    expert.push_back(static_cast<std::int32_t>(std::max(a, b)));
  }
  return expert;
}

/// A stand-in for the expert: distinct for every (row, expert).
float f_of(float x, std::int64_t expert) { return x * 64 + static_cast<float>(expert); }

class Exchange : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Transports, Exchange, testing::Bool(),
                         [](const auto& test) { return test.param ? "Devices" : "Mpi"; });

TEST_P(Exchange, EverySlotComesBackFromTheOwnerOfItsExpert) {
  const Comm world(MPI_COMM_WORLD);
  const int ranks = world.size();
  const std::int64_t experts = 2 * ranks + 1;  // not a multiple of the ranks
  const Model model = model_of(experts);
  const Placement placement = place(model, {1, ranks, 1}, world.rank());
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  const auto link = GetParam() ? make_device_link(world, placement, *backend, kHidden, {}, test::connect_by_mpi)
                               : make_mpi_link(world, placement, *backend, kHidden, {});
  ExpertExchange exchange(model, placement, *backend, *link);

  const std::int64_t rows = rows_of(world.rank());
  const std::vector<std::int32_t> expert = choices(world.rank(), experts);
  for (int round = 0; round < 2; ++round) {
    std::int64_t all_rows = 0;
    for (int rank = 0; rank < ranks; ++rank) all_rows += rows_of(rank);
    std::vector<float> x(static_cast<std::size_t>(all_rows * kHidden));
    for (std::int64_t i = 0; i < rows * kHidden; ++i) {
      x[static_cast<std::size_t>(i)] = x_of(world.rank(), i / kHidden, i % kHidden);
    }
    const std::span<const SlotTag> came = exchange.all_dispatch(expert, rows, reinterpret_cast<std::byte*>(x.data()));

    // Compute own slots, then those that came, in this order; place 0 stays unused so that an offset would show.
    std::vector<float> f(kHidden);
    std::vector<float> norm(1);
    std::vector<std::int32_t> position(expert.size(), -1);
    const auto compute = [&](std::int64_t row, std::int64_t e) {
      EXPECT_TRUE(placement.experts.holds(e));
      for (std::int64_t i = 0; i < kHidden; ++i) f.push_back(f_of(x[static_cast<std::size_t>(row * kHidden + i)], e));
      norm.push_back(f[f.size() - kHidden] + 0.5F);
      return static_cast<std::int32_t>(norm.size() - 1);
    };
    for (std::size_t slot = 0; slot < expert.size(); ++slot) {
      if (placement.experts.holds(expert[slot])) {
        position[slot] = compute(static_cast<std::int64_t>(slot) / kTopK, expert[slot]);
      }
    }
    std::vector<std::int32_t> came_position;
    std::set<std::int32_t> came_rows;
    for (const SlotTag& tag : came) {
      EXPECT_GE(tag.row, rows);
      EXPECT_LT(tag.row, all_rows);
      came_rows.insert(tag.row);
      came_position.push_back(compute(tag.row, tag.expert));
    }
    // Rows that came fill the places behind the own ones without a gap: each was sent once.
    EXPECT_TRUE(came_rows.empty() || *came_rows.rbegin() == rows + static_cast<std::int64_t>(came_rows.size()) - 1);

    const auto computed = static_cast<std::int64_t>(norm.size());
    const auto places = static_cast<std::size_t>(computed + exchange.sent_slots());
    f.resize(places * kHidden);
    norm.resize(places);
    std::vector<float> max_abs(norm);
    for (float& value : max_abs) value += 0.25F;
    exchange.all_collect(expert, came_position, computed, reinterpret_cast<std::byte*>(f.data()), norm.data(),
                         max_abs.data(), position);

    for (std::size_t slot = 0; slot < expert.size(); ++slot) {
      const auto place = static_cast<std::size_t>(position[slot]);
      ASSERT_LT(place, places);
      const std::int64_t row = static_cast<std::int64_t>(slot) / kTopK;
      for (std::int64_t i = 0; i < kHidden; ++i) {
        EXPECT_EQ(f[place * kHidden + static_cast<std::size_t>(i)], f_of(x_of(world.rank(), row, i), expert[slot]));
      }
      EXPECT_EQ(norm[place], f[place * kHidden] + 0.5F);
      EXPECT_EQ(max_abs[place], f[place * kHidden] + 0.75F);
    }
    EXPECT_EQ(std::set<std::int32_t>(position.begin(), position.end()).size(), expert.size());
  }
}

}  // namespace
}  // namespace reap
