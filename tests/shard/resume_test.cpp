// A pass that streams its weights, and one that is stopped at any point and goes on anywhere, gives the bits of a pass
// in one piece.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include "grid_fixture.hpp"
#include "mpi_device_comm.hpp"

namespace reap {
namespace {

using test::expect_same;
using test::Observer;

constexpr std::int64_t kBlockTokens = 64;  // some samples alone, some together

/// A small model whose layers are about 40 kB, and its samples.
struct Fixture {
  explicit Fixture(const Comm& world)
      : folder{world, model}, observer{folder.path(), test::odd_samples(model.vocab), kBlockTokens} {
    expected = observer.all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, Compute::fp32);
  }
  test::RandomModel model;
  test::SharedFolder folder;
  Observer observer;
  Saliency expected;
};

/// Resident; streamed with hardly any window or room for blocks; with room for some of each; all blocks in one wave.
std::vector<Holding> holdings() {
  return {{false, 0, 0}, {true, 0, 0}, {true, 60'000, 150}, {true, 1'000'000, 1'000'000}};
}

std::string text_of(const Grid& grid, const Holding& holding) {
  return fmt::format("pp {} ep {} dp {}, {} window {} wave {}", grid.pp, grid.ep, grid.dp,
                     holding.streamed ? "streamed" : "resident", holding.weight_window, holding.wave_rows);
}

TEST(Streaming, GivesTheBitsOfAResidentPass) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f(world);
  for (const Grid& grid : test::grids(world.size(), f.observer.model())) {
    for (const Holding& holding : holdings()) {
      for (const bool scratch : {false, true}) {
        if (scratch && !holding.streamed) continue;
        SCOPED_TRACE(text_of(grid, holding) + (scratch ? ", scratch" : ""));
        Observer::Manner manner;
        manner.holding = holding;
        if (scratch) manner.scratch = f.folder.path();
        expect_same(world, f.observer.all_run(world, grid, manner), f.expected);
        manner.connect = test::connect_by_mpi;
        expect_same(world, f.observer.all_run(world, grid, manner), f.expected);
      }
    }
  }
}

TEST(Streaming, ErrorsOfTheReaderEndThePass) {
  const Comm world(MPI_COMM_WORLD);
  const test::RandomModel model;
  const test::SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), kBlockTokens);
  world.all_barrier();
  if (world.rank() == 0) {
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      if (entry.path().extension() == ".safetensors") std::filesystem::resize_file(entry.path(), 100'000);
    }
  }
  world.all_barrier();
  Observer::Manner manner;
  manner.holding = {true, 0, 0};
  try {
    observer.all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, manner);
    FAIL() << "read beyond the end";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("has shrunk"), std::string::npos) << error.what();
  }
}

/// A state that has been saved, on every rank.
struct Saved {
  Snapshot snapshot;
  std::map<std::int64_t, std::vector<float>> hidden;  // by block

  StartingPoint start() const {
    return {snapshot, [this](std::int64_t block, float* x) { std::ranges::copy(hidden.at(block), x); }};
  }
};

Saved all_save(const Comm& world, const Snapshot& snapshot, const std::vector<HeldBlock>& own, std::int64_t hidden) {
  Saved saved{snapshot, {}};
  std::string mine;
  for (const HeldBlock& block : own) {
    std::vector<float> x(static_cast<std::size_t>(block.rows * hidden));
    block.read(x.data());
    const auto size = static_cast<std::int64_t>(x.size());
    mine.append(reinterpret_cast<const char*>(&block.block), sizeof block.block);
    mine.append(reinterpret_cast<const char*>(&size), sizeof size);
    mine.append(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float));
  }
  for (const std::string& text : world.all_gather(mine)) {
    for (std::size_t at = 0; at < text.size();) {
      std::int64_t block = 0;
      std::int64_t size = 0;
      std::memcpy(&block, text.data() + at, sizeof block);
      std::memcpy(&size, text.data() + at + sizeof block, sizeof size);
      std::vector<float> x(static_cast<std::size_t>(size));
      std::memcpy(x.data(), text.data() + at + 2 * sizeof block, x.size() * sizeof(float));
      at += 2 * sizeof block + x.size() * sizeof(float);
      EXPECT_TRUE(saved.hidden.emplace(block, std::move(x)).second) << "block " << block << " is held twice";
    }
  }
  return saved;
}

/// The sums are those of the blocks that have passed, layer by layer, and exactly the blocks inside have hidden states.
void expect_consistent(const Saved& saved, const Observer& observer) {
  const Model& model = observer.model();
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(model.layers));
  for (std::size_t block = 0; block < observer.blocks().size(); ++block) {
    const std::int64_t next = saved.snapshot.next_layer[block];
    for (std::int64_t layer = 0; layer < next; ++layer) {
      tokens[static_cast<std::size_t>(layer)] += observer.blocks()[block].rows();
    }
    EXPECT_EQ(saved.hidden.contains(static_cast<std::int64_t>(block)), next > 0 && next < model.layers) << block;
  }
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    std::int64_t slots = 0;
    for (std::int64_t group = 0; group < saved.snapshot.saliency.groups; ++group) {
      for (std::int64_t e = 0; e < model.router.experts; ++e) slots += saved.snapshot.saliency.count(group, layer, e);
    }
    EXPECT_EQ(slots, model.router.top_k * tokens[static_cast<std::size_t>(layer)]) << "layer " << layer;
  }
}

TEST(Saving, LeavesThePassAsItWas) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f(world);
  for (const Grid& grid : test::grids(world.size(), f.observer.model())) {
    for (const Holding& holding : holdings()) {
      SCOPED_TRACE(text_of(grid, holding));
      Observer::Manner manner;
      manner.holding = holding;
      if (holding.wave_rows == 0) manner.connect = test::connect_by_mpi;
      int saves = 0;
      manner.events.wishes.save = [] { return true; };  // after every operation
      manner.events.all_save = [&](const Snapshot& snapshot, const std::vector<HeldBlock>& own) {
        expect_consistent(all_save(world, snapshot, own, f.observer.model().hidden), f.observer);
        ++saves;
      };
      expect_same(world, f.observer.all_run(world, grid, manner), f.expected);
      EXPECT_GT(saves, 0);
    }
  }
}

/// Runs until the pass is over, stopped again and again, each time on the next grid and in the next manner.
TEST(Resuming, GivesTheBitsOfAPassInOnePiece) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f(world);
  const std::vector<Grid> grids = test::grids(world.size(), f.observer.model());
  std::mt19937 random(7);  // the same on every rank
  std::size_t turn = 0;
  int all_stops = 0;
  for (int trial = 0; trial < 12; ++trial) {
    std::optional<Saved> saved;
    int stops = 0;
    for (bool over = false; !over; ++turn) {
      const Grid& grid = grids[turn % grids.size()];
      const Holding holding = holdings()[turn / 2 % holdings().size()];
      SCOPED_TRACE(fmt::format("trial {}, stop {}: {}", trial, stops, text_of(grid, holding)));
      const auto asked = static_cast<int>(random() % static_cast<unsigned>(world.size()));
      int left = static_cast<int>(random() % (1 + 30 / static_cast<unsigned>(world.size())));  // of this rank's part
      const bool scratch = random() % 2 == 0;
      Observer::Manner manner;
      manner.holding = holding;
      if (scratch) manner.scratch = f.folder.path();
      if (turn % 3 == 1) manner.connect = test::connect_by_mpi;
      if (saved) manner.start = saved->start();
      manner.events.layer_done = [&](const Block&) { --left; };
      manner.events.wishes.stop = [&] { return world.rank() == asked && left <= 0; };
      std::optional<Saved> next;
      manner.events.all_save = [&](const Snapshot& snapshot, const std::vector<HeldBlock>& own) {
        next = all_save(world, snapshot, own, f.observer.model().hidden);
        expect_consistent(*next, f.observer);
      };
      try {
        expect_same(world, f.observer.all_run(world, grid, manner), f.expected);
        over = true;
      } catch (const SharedError& error) {
        ASSERT_EQ(error.code(), ExitCode::stopped) << error.what();
        if (next) saved = std::move(next);  // nothing was to be saved while weights were read
        ++stops;
        ++all_stops;
      }
      ASSERT_LT(stops, 200) << "no progress";
    }
  }
  EXPECT_GT(all_stops, 0) << "no pass was stopped";
}

/// As after a kill between the last save and the saliency file.
TEST(Resuming, HasNothingToDoWhenAllBlocksAreDone) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f(world);
  for (const Grid& grid : test::grids(world.size(), f.observer.model())) {
    for (const Holding& holding : holdings()) {
      SCOPED_TRACE(text_of(grid, holding));
      Observer::Manner manner;
      manner.holding = holding;
      const std::vector<std::int64_t> done(f.observer.blocks().size(), f.observer.model().layers);
      manner.start = {{f.expected, done}, [](std::int64_t block, float*) { FAIL() << "read block " << block; }};
      expect_same(world, f.observer.all_run(world, grid, manner), f.expected);
    }
  }
}

TEST(Stopping, NeedsNotWaitForAllWeights) {
  const Comm world(MPI_COMM_WORLD);
  const Fixture f(world);
  for (const Grid& grid : test::grids(world.size(), f.observer.model())) {
    Observer::Manner manner;
    int layers = 0;
    manner.events.layer_read = [&](std::int64_t) { ++layers; };
    manner.events.wishes.stop = [&] { return world.rank() == world.size() - 1; };
    manner.events.all_save = [](const Snapshot&, const std::vector<HeldBlock>&) { FAIL() << "nothing is to be saved"; };
    try {
      f.observer.all_run(world, grid, manner);
      FAIL() << "went on";
    } catch (const SharedError& error) {
      EXPECT_EQ(error.code(), ExitCode::stopped) << error.what();
    }
    EXPECT_EQ(layers, 1);
  }
}

/// Whether each rank is slow: it rests after every layer.
using Slow = std::function<bool(const Placement& placement)>;

/// Runs until rank `asked` has taken blocks through `layers` layers. @return the state; nothing when the pass was over
std::optional<Saved> all_run_until(const Comm& world, const Observer& observer, const Grid& grid,
                                   Observer::Manner manner, const Slow& slow, int asked, int layers) {
  const Placement placement = place(observer.model(), grid, world.rank());
  const bool rests = slow(placement);
  manner.events.layer_done = [&](const Block&) {
    --layers;
    if (rests) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  };
  manner.events.wishes.stop = [&] { return world.rank() == asked && layers <= 0; };
  std::optional<Saved> saved;
  manner.events.all_save = [&](const Snapshot& snapshot, const std::vector<HeldBlock>& own) {
    saved = all_save(world, snapshot, own, observer.model().hidden);
    expect_consistent(*saved, observer);
  };
  try {
    observer.all_run(world, grid, manner);
    return std::nullopt;
  } catch (const SharedError& error) {
    EXPECT_EQ(error.code(), ExitCode::stopped) << error.what();
  }
  return saved;
}

/// Some columns of an expert group have long been through layers that others have yet to see. A rank that has nothing
/// to do in an operation must not run ahead into it: those that have something may need a stage that stands still.
TEST(Resuming, ReachesACutWhateverTheColumnsOfAGroupHaveToDo) {
  const Comm world(MPI_COMM_WORLD);
  test::RandomModel model;
  model.layers = 16;
  const test::SharedFolder folder(world, model);
  const Observer observer(folder.path(), test::odd_samples(model.vocab), 1);  // a sample a block: more than links hold
  const Saliency expected = observer.all_run(Comm(MPI_COMM_SELF), {1, 1, 1}, Compute::fp32);
  // Each rank takes all of its blocks through one layer after the other; those of odd columns stay behind.
  Observer::Manner all_at_once;
  all_at_once.holding = {true, 0, 1'000'000};
  const std::optional<Saved> apart = all_run_until(
      world, observer, {1, 1, world.size()}, all_at_once, [](const Placement& p) { return p.column() % 2 == 1; }, 0,
      150 / world.size());
  ASSERT_TRUE(apart);
  for (const Grid& grid : test::grids(world.size(), observer.model())) {
    if (grid.pp == 1) continue;
    for (int slow = 0; slow < grid.pp; ++slow) {
      for (const int layers : {1, 6, 15, 21}) {
        SCOPED_TRACE(fmt::format("{}, stage {} slow, stop after {}", text_of(grid, {}), slow, layers));
        Observer::Manner manner;
        manner.start = apart->start();
        const auto is_slow = [&](const Placement& p) { return p.stage == slow; };
        const int asked = slow * grid.ep + (grid.ep - 1);  // a rank of an odd column
        const std::optional<Saved> saved = all_run_until(world, observer, grid, manner, is_slow, asked, layers);
        if (saved) manner.start = saved->start();
        expect_same(world, observer.all_run(world, grid, manner), expected);
      }
    }
  }
}

}  // namespace
}  // namespace reap
