#include "shard/link.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>

#include "mpi_device_comm.hpp"
#include "shard/link_device.hpp"
#include "shard/link_mpi.hpp"

namespace reap {
namespace {

constexpr std::int64_t kHidden = 5;

/// By MPI with one message a transfer, with a few, and with many; and from device to device, which MPI stands in for.
constexpr std::int64_t kDevices = 0;
class LinkTest : public testing::TestWithParam<std::int64_t> {
 protected:
  static std::unique_ptr<Link> make_link(const Comm& world, const Placement& placement, Backend& backend,
                                         std::vector<std::int64_t> coming) {
    if (GetParam() == kDevices) {
      return make_device_link(world, placement, backend, kHidden, std::move(coming), test::connect_by_mpi);
    }
    return make_mpi_link(world, placement, backend, kHidden, std::move(coming), GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Transports, LinkTest, testing::Values(kMessageBytes, 100'003, 5'000, kDevices),
                         [](const auto& test) {
                           return test.param == kDevices ? "Devices" : "MessagesOf" + std::to_string(test.param);
                         });

Placement stages_only(const Comm& world) {
  Model model{};
  model.layers = world.size();
  model.router.experts = 1;
  return place(model, {.pp = world.size(), .ep = 1, .dp = 1}, world.rank());
}

Placement shards_only(const Comm& world) {
  Model model{};
  model.layers = 1;
  model.router.experts = world.size();
  return place(model, {.pp = 1, .ep = world.size(), .dp = 1}, world.rank());
}

/// What a stage is told to expect.
std::vector<std::int64_t> coming(const Placement& placement, const std::vector<std::int64_t>& blocks) {
  return placement.stage == 0 ? std::vector<std::int64_t>{} : blocks;
}

/// Blocks of unlike lengths go down the stages; each stage adds one to every value. Some are sent while others travel.
TEST_P(LinkTest, BlocksPassFromStageToStageInOrder) {
  const Comm world(MPI_COMM_WORLD);
  const Placement placement = stages_only(world);
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  const std::vector<std::int64_t> blocks{3, 1, 70'000, 2, 2, 0, 11, 4};  // the long one takes the rendezvous path
  const auto link = make_link(world, placement, *backend, coming(placement, blocks));
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    std::vector<float> x(static_cast<std::size_t>(blocks[block] * kHidden));
    if (placement.stage == 0) {
      std::iota(x.begin(), x.end(), static_cast<float>(block));
    } else {
      world.wait_until([&] { return link->arrived(); }, "test");
      link->receive(x.data(), blocks[block]);
    }
    link->progress();
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(x[i], static_cast<float>(block + i) + static_cast<float>(placement.stage)) << "block " << block;
      x[i] += 1;
    }
    if (placement.stage + 1 < placement.grid.pp) {
      world.wait_until([&] { return link->clear(); }, "test");
      link->send(x.data(), blocks[block]);
      std::fill(x.begin(), x.end(), -1.0F);  // x is ours again
    }
  }
  world.wait_until([&] { return link->flushed(); }, "test");
  world.all_barrier();
}

/// The first stage sends as much as it can; the others take `taken` blocks and then nothing more.
TEST_P(LinkTest, EveryBlockOnItsWayIsOneRanks) {
  const Comm world(MPI_COMM_WORLD);
  const Placement placement = stages_only(world);
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  const std::vector<std::int64_t> blocks{3, 1, 70'000, 2, 2, 0, 11, 4};
  for (std::size_t taken = 0; taken < 4; ++taken) {
    const auto link = make_link(world, placement, *backend, coming(placement, blocks));
    world.on_wait([&] { link->progress(); });
    std::vector<float> x(70'000 * kHidden);
    const auto send = [&](std::size_t block) {
      std::fill(x.begin(), x.end(), static_cast<float>(block));
      link->send(x.data(), blocks[block]);
    };
    std::size_t sent = 0;
    if (placement.stage == 0) {
      // Two in berths of the next stage, and two that wait here for theirs to be free.
      const std::size_t room = world.size() == 1 ? 0 : taken + 4;
      for (; sent < std::min(room, blocks.size()); ++sent) {
        world.wait_until([&] { return link->clear(); }, "test");
        send(sent);
      }
    } else if (placement.stage == 1) {
      for (std::size_t block = 0; block < taken; ++block) {
        world.wait_until([&] { return link->arrived(); }, "test");
        link->receive(x.data(), blocks[block]);
        ASSERT_TRUE(blocks[block] == 0 || x[0] == static_cast<float>(block));
      }
    }
    world.all_barrier();
    std::vector<std::int64_t> owners(blocks.size());
    for (int round = 0; round < 2; ++round) {  // they stay on their way
      std::fill(owners.begin(), owners.end(), 0);
      for (const Link::Travelling& block : link->all_travelling()) {
        const auto n = static_cast<std::size_t>(block.number);
        EXPECT_EQ(block.incoming, placement.stage == 1);
        ++owners[n];
        if (blocks[n] == 0) continue;
        float first = 0;
        std::memcpy(&first, block.x, sizeof first);
        EXPECT_EQ(first, static_cast<float>(n));
      }
      world.all_sum(owners);
      for (std::size_t n = 0; n < blocks.size(); ++n) {
        EXPECT_EQ(owners[n], world.size() > 1 && n >= taken && n < taken + 4 ? 1 : 0) << "block " << n;
      }
    }
    link->all_drop();
    EXPECT_TRUE(link->flushed());
    world.on_wait({});
    world.all_barrier();
  }
}

/// Nobody has been called by all before the last one calls; and a pass may end while some wait for others.
TEST_P(LinkTest, CallsAreHeardByTheWholeGroup) {
  const Comm world(MPI_COMM_WORLD);
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  for (int missing = 0; missing <= world.size(); ++missing) {  // ranks that do not call any more
    const auto link = make_link(world, shards_only(world), *backend, {});
    std::int64_t calls = 0;
    for (int round = 0; round < 5; ++round) {
      link->call_group();
      ++calls;
      world.wait_until([&] { return link->group_called(); }, "test");
      std::int64_t fewest = -calls;
      world.all_max(std::span(&fewest, 1));
      EXPECT_EQ(-fewest, calls);
    }
    if (world.rank() >= missing) {
      link->call_group();
      world.wait_until([] { return true; }, "test");
      EXPECT_TRUE(missing == 0 || world.size() == 1 || !link->group_called());
    }
    world.all_barrier();
    link->all_drop();
    EXPECT_TRUE(link->group_called());
  }
}

TEST_P(LinkTest, ExchangeTakesEachPartToItsShard) {
  const Comm world(MPI_COMM_WORLD);
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  const auto link = make_link(world, shards_only(world), *backend, {});
  const int ranks = world.size();
  // From a to b go (a * 7 + b * 3) % 5 times 40,000 bytes, so that some are empty; their value names the pair.
  const auto length = [](int from, int to) { return std::int64_t{(from * 7 + to * 3) % 5} * 40'000; };
  const auto value = [&](int from, int to) { return static_cast<std::byte>(1 + from * ranks + to); };
  std::vector<std::int64_t> send_start{0};
  std::vector<std::int64_t> receive_start{0};
  std::vector<std::byte> send;
  for (int other = 0; other < ranks; ++other) {
    const bool own = other == world.rank();
    send_start.push_back(send_start.back() + (own ? 0 : length(world.rank(), other)));
    send.resize(static_cast<std::size_t>(send_start.back()), value(world.rank(), other));
    receive_start.push_back(receive_start.back() + (own ? 0 : length(other, world.rank())));
  }
  std::vector<std::byte> receive(static_cast<std::size_t>(receive_start.back()));
  for (int round = 0; round < 3; ++round) {
    std::fill(receive.begin(), receive.end(), std::byte{0});
    const Link::Lane::Place place = round % 2 == 0 ? Link::Lane::Place::host : Link::Lane::Place::backend;
    const Link::Lane lane{place, send.data(), receive.data(), 1, send_start, receive_start};
    link->all_exchange(std::span(&lane, 1));
    for (int other = 0; other < ranks; ++other) {
      const auto o = static_cast<std::size_t>(other);
      for (std::int64_t i = receive_start[o]; i < receive_start[o + 1]; ++i) {
        ASSERT_EQ(receive[static_cast<std::size_t>(i)], value(other, world.rank())) << "from " << other;
      }
    }
  }
}

TEST_P(LinkTest, ExchangeLeavesTheOwnPartAlone) {
  const Comm world(MPI_COMM_WORLD);
  const auto backend = make_cpu_backend(Compute::fp32, 1, CpuIsa::automatic);
  const auto link = make_link(world, shards_only(world), *backend, {});
  std::vector<std::int64_t> start;
  for (int shard = 0; shard <= world.size(); ++shard) start.push_back(shard);
  const std::vector<std::byte> send(static_cast<std::size_t>(world.size()), std::byte{1});
  std::vector<std::byte> receive(send.size(), std::byte{9});
  const Link::Lane lane{Link::Lane::Place::host, send.data(), receive.data(), 1, start, start};
  link->all_exchange(std::span(&lane, 1));
  for (int shard = 0; shard < world.size(); ++shard) {
    EXPECT_EQ(receive[static_cast<std::size_t>(shard)], shard == world.rank() ? std::byte{9} : std::byte{1});
  }
}

}  // namespace
}  // namespace reap
