#include "driver/state.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>

#include "driver/expect_error.hpp"
#include "driver/pruned_models.hpp"
#include "driver/size_limit.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLayers = 3, kExperts = 5, kTopK = 2, kHidden = 7;

SaliencyInfo small_info() {
  return {"minimax_m2", std::string(64, 'a'), std::string(32, 'b'), "fp32", "cpu test", 8, 5, 23, kTopK, {"x", "y"}};
}

/// 23 tokens in 5 blocks of 8, 3, 1, 4 and 7.
std::vector<Block> small_blocks() {
  std::vector<Block> blocks;
  std::int64_t begin = 0;
  for (const std::int64_t rows : {8, 3, 1, 4, 7}) {
    const auto index = static_cast<std::int64_t>(blocks.size());
    blocks.push_back({index, index, index + 1, begin, begin + rows});
    begin += rows;
  }
  return blocks;
}

/// The table of a pass of which block b has been through next_layer[b] layers: each of its tokens chose experts 0 and
/// 1 + b % 4.
Snapshot snapshot_at(const std::vector<std::int64_t>& next_layer) {
  const auto blocks = small_blocks();
  Snapshot snapshot{Saliency(4, kLayers, kExperts), next_layer};
  Saliency& table = snapshot.saliency;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    for (std::int64_t layer = 0; layer < next_layer[b]; ++layer) {
      const auto group = static_cast<std::int64_t>(b) % 4;
      for (const std::int64_t expert : {std::int64_t{0}, 1 + group}) {
        table.count(group, layer, expert) += blocks[b].rows();
        table.digits(Field::gate, group, layer, expert)[1] += blocks[b].rows() * 5;
        table.digits(Field::norm_sq, group, layer, expert)[3] += 1;
        table.max_abs[static_cast<std::size_t>(table.index(group, layer, expert))] = 0.1f + static_cast<float>(b);
      }
    }
  }
  return snapshot;
}

/// The hidden states of a block at a layer: bit patterns of all kinds, a NaN among them.
std::vector<float> hidden_of(const Block& block, std::int64_t next_layer) {
  std::vector<float> x(static_cast<std::size_t>(block.rows() * kHidden));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = std::bit_cast<float>(
        static_cast<std::uint32_t>(i * 2654435761U + static_cast<std::uint32_t>(block.index * 97 + next_layer)));
  }
  x[0] = std::numeric_limits<float>::quiet_NaN();
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}

class StateTest : public testing::Test {
 protected:
  StateFolder folder(const SaliencyInfo& info = small_info()) const {
    return {directory_ / "state", info, small_blocks(), kHidden, kLayers};
  }

  /// The blocks inside the model, dealt out over the ranks from the last one on.
  static std::vector<HeldBlock> held_by(const Comm& world, const std::vector<std::int64_t>& next_layer) {
    std::vector<HeldBlock> own;
    for (const Block& block : small_blocks()) {
      const std::int64_t next = next_layer[static_cast<std::size_t>(block.index)];
      if (next == 0 || next == kLayers || (block.index + world.rank() + 1) % world.size() != 0) continue;
      own.push_back(
          {block.index, block.rows(), [block, next](float* x) { std::ranges::copy(hidden_of(block, next), x); }});
    }
    return own;
  }

  static void commit(const Comm& world, StateFolder& state, const std::vector<std::int64_t>& next_layer) {
    state.all_commit(world, snapshot_at(next_layer), held_by(world, next_layer));
  }

  static void expect_at(const std::optional<StartingPoint>& start, const std::vector<std::int64_t>& next_layer) {
    ASSERT_TRUE(start.has_value());
    const Snapshot expected = snapshot_at(next_layer);
    EXPECT_EQ(start->snapshot.next_layer, next_layer);
    EXPECT_EQ(start->snapshot.saliency.sums, expected.saliency.sums);
    EXPECT_EQ(start->snapshot.saliency.max_abs, expected.saliency.max_abs);
    for (const Block& block : small_blocks()) {
      const std::int64_t next = next_layer[static_cast<std::size_t>(block.index)];
      if (next == 0 || next == kLayers) continue;
      std::vector<float> x(static_cast<std::size_t>(block.rows() * kHidden));
      start->read_hidden(block.index, x.data());
      EXPECT_TRUE(same_bits(x, hidden_of(block, next))) << "block " << block.index;
    }
  }

  /// What is in the folder when all ranks have come here.
  std::vector<std::string> names() const {
    world_.all_barrier();
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(directory_ / "state")) found.push_back(entry.path().filename());
    std::ranges::sort(found);
    return found;
  }

  /// On rank 0 alone, for the files are the same for all.
  void on_first(const std::function<void()>& work) const {
    world_.all_barrier();
    if (world_.rank() == 0) work();
    world_.all_barrier();
  }

  Comm world_{MPI_COMM_WORLD};
  Comm self_{MPI_COMM_SELF};
  SharedDirectory directory_{world_};
  std::string log_;
};

const std::vector<std::int64_t> kBegun = {3, 1, 0, 2, 1};
const std::vector<std::int64_t> kLater = {3, 3, 1, 2, 2};

TEST_F(StateTest, NothingIsThereAtFirst) {
  EXPECT_FALSE(folder().all_load(world_, log_).has_value());
  EXPECT_EQ(log_, "");
}

TEST_F(StateTest, ComesBackAsItWas) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  expect_at(folder().all_load(world_, log_), kBegun);
  commit(world_, state, kLater);
  expect_at(folder().all_load(world_, log_), kLater);
  EXPECT_EQ(log_, "");
}

TEST_F(StateTest, HoldsNoHiddenStatesBetweenBlocks) {
  const std::vector<std::int64_t> between = {3, 3, 0, 0, 0};
  StateFolder state = folder();
  commit(world_, state, between);
  expect_at(folder().all_load(world_, log_), between);
  on_first([&] { EXPECT_FALSE(fs::exists(directory_ / "state/generation-000001/hidden-0000.f32")); });
}

TEST_F(StateTest, AnyNumberOfRanksGoesOnFromAnyOther) {
  StateFolder state = folder();
  commit(world_, state, kBegun);  // by all
  on_first([&] {                  // read, and gone on from, by one
    StateFolder alone = folder();
    expect_at(alone.all_load(self_, log_), kBegun);
    commit(self_, alone, kLater);
  });
  expect_at(folder().all_load(world_, log_), kLater);
}

TEST_F(StateTest, KeepsTwoGenerations) {
  StateFolder state = folder();
  for (int i = 0; i < 4; ++i) commit(world_, state, kBegun);
  EXPECT_EQ(names(), (std::vector<std::string>{"generation-000003", "generation-000004"}));
}

TEST_F(StateTest, WhatWasLoadedCanBeReadWhenItIsGone) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  const auto start = folder().all_load(world_, log_);
  for (int i = 0; i < 3; ++i) commit(world_, state, kLater);
  EXPECT_EQ(names()[0], "generation-000003");
  expect_at(start, kBegun);
}

TEST_F(StateTest, AllIsRemovedAtTheEnd) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  commit(world_, state, kLater);
  on_first([&] { write_text(directory_ / "state/notes.txt", "mine"); });
  state.all_remove(world_);
  EXPECT_EQ(names(), (std::vector<std::string>{"notes.txt"}));
  state.all_remove(world_);
}

TEST_F(StateTest, OtherThingsInTheFolderAreLeftAlone) {
  on_first([&] {
    for (const char* name : {"generation-7", "generation-000007x", "generation-9999999999999999999", "generation-",
                             "generation-000008.partial.old", "xgeneration-000009"}) {
      fs::create_directories(directory_ / "state" / name);
    }
    fs::create_directories(directory_ / "state/generation-000005.partial/deep");
  });
  StateFolder state = folder();
  EXPECT_FALSE(state.all_load(world_, log_).has_value());
  commit(world_, state, kBegun);
  EXPECT_EQ(names().size(), 7u);
  EXPECT_FALSE(fs::exists(directory_ / "state/generation-000005.partial"));
  expect_at(folder().all_load(world_, log_), kBegun);
}

TEST_F(StateTest, AnotherIdentityIsRefusedInWords) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  const std::map<std::string, std::function<void(SaliencyInfo&)>> changes{
      {"another model", [](SaliencyInfo& i) { i.model_digest[0] = 'c'; }},
      {"other calibration samples", [](SaliencyInfo& i) { i.calibration_digest[0] = 'c'; }},
      {"--block-tokens 8", [](SaliencyInfo& i) { i.block_tokens = 9; }},
      {"--compute fp32", [](SaliencyInfo& i) { i.compute = "bf16"; }},
      {"numerics 'cpu test', not 'cpu other'", [](SaliencyInfo& i) { i.numerics_id = "cpu other"; }},
      {"5 samples of 23 tokens", [](SaliencyInfo& i) { i.samples = 6; }},
      {"5 samples of 23 tokens ", [](SaliencyInfo& i) { i.tokens = 24; }},
  };
  for (const auto& [words, change] : changes) {
    SaliencyInfo info = small_info();
    change(info);
    const std::string said = words.back() == ' ' ? words.substr(0, words.size() - 1) : words;
    expect_error(ExitCode::bad_input, {(directory_ / "state").string(), said, "--state"},
                 [&] { folder(info).all_load(world_, log_); });
  }
  EXPECT_EQ(log_, "");
  expect_at(folder().all_load(world_, log_), kBegun);
}

/// Flips each byte (or every 37th of a table's) of every file of the newest generation in turn.
TEST_F(StateTest, ADamagedGenerationIsNotUsedButTheOneBefore) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  commit(world_, state, kLater);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory_ / "state/generation-000002")) files.push_back(entry);
  std::ranges::sort(files);
  EXPECT_GE(files.size(), 3u);
  for (const fs::path& file : files) {
    const std::string bytes = read_text(file);
    world_.all_barrier();
    for (std::size_t at = 0; at < bytes.size(); at += file.extension() == ".h5" ? 637 : 13) {
      on_first([&] {
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
        write_text(file, damaged);
      });
      log_.clear();
      const auto start = folder().all_load(world_, log_);
      ASSERT_TRUE(start.has_value());
      EXPECT_EQ(start->snapshot.next_layer, kBegun) << file << " byte " << at;
      EXPECT_NE(log_.find("generation 2 is not used"), std::string::npos) << log_;
    }
    on_first([&] { write_text(file, bytes); });
  }
  expect_at(folder().all_load(world_, log_), kLater);
}

TEST_F(StateTest, MissingAndShortFilesAreDamage) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  commit(world_, state, kLater);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory_ / "state/generation-000002")) files.push_back(entry);
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    const std::string bytes = read_text(file);
    for (const std::size_t length : {bytes.size() - 1, bytes.size() / 2, std::size_t{0}, std::string::npos}) {
      on_first([&] {
        if (length == std::string::npos) {
          fs::remove(file);
        } else {
          write_text(file, bytes.substr(0, length));
        }
      });
      log_.clear();
      const auto start = folder().all_load(world_, log_);
      ASSERT_TRUE(start.has_value());
      EXPECT_EQ(start->snapshot.next_layer, kBegun) << file << " of length " << length;
      EXPECT_NE(log_.find(file.filename().string()), std::string::npos) << log_;
    }
    on_first([&] { write_text(file, bytes); });
  }
}

TEST_F(StateTest, GoesOnAfterDamageWithoutTrustingIt) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  commit(world_, state, kLater);
  on_first([&] { fs::remove(directory_ / "state/generation-000002/state.h5"); });
  StateFolder next = folder();
  expect_at(next.all_load(world_, log_), kBegun);
  commit(world_, next, kLater);  // the damaged one is no second generation
  EXPECT_EQ(names(), (std::vector<std::string>{"generation-000001", "generation-000003"}));
}

TEST_F(StateTest, NothingIsTakenWhereAllIsDamaged) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  on_first([&] { fs::remove(directory_ / "state/generation-000001/state.sha256"); });
  EXPECT_FALSE(folder().all_load(world_, log_).has_value());
  EXPECT_NE(log_.find("state.sha256"), std::string::npos) << log_;
}

/// Whole files of the right checksum whose contents contradict each other.
TEST_F(StateTest, ContradictionsAreDamage) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  const fs::path generation = directory_ / "state/generation-000001";
  const State good = read_state(generation);
  const std::map<std::string, std::function<void(State&)>> spoils{
      {"counts add up",
       [](State& s) {
         s.snapshot.next_layer = {3, 1, 1, 2, 1}, s.held.push_back(s.held[0]), s.held.back().block = 2,
         s.held.back().rows = 1, std::ranges::sort(s.held, {}, &HeldRecord::block);
       }},
      {"at layer 4", [](State& s) { s.snapshot.next_layer[0] = 4; }},
      {"at layer -1", [](State& s) { s.snapshot.next_layer[2] = -1; }},
      {"block 1 is inside the model", [](State& s) { s.held.erase(s.held.begin()); }},
      {"which needs none", [](State& s) { s.held.push_back(s.held.back()), s.held.back().block = 5; }},
      {"block 3 is inside the model", [](State& s) { s.held.insert(s.held.begin(), s.held[0]); }},
      {"impossible place", [](State& s) { s.held[0].rows = 2; }},
      {"impossible place ", [](State& s) { s.held[0].offset = -4; }},
      {"impossible place  ", [](State& s) { s.held[0].file = -1; }},
      {"has 9 rows", [](State& s) { s.rows.back() = 9; }},
      {"has 0 rows", [](State& s) { s.rows[0] = 0; }},
      {"lack 1 of 23 tokens", [](State& s) { --s.rows[0]; }},
      {"hidden-0007.f32", [](State& s) { s.held[0].file = 7; }},
      {"too few for block 1", [](State& s) { s.held[0].offset = std::numeric_limits<std::int64_t>::max(); }},
      {"another digest", [](State& s) { s.held[0].digest[0] = s.held[0].digest[0] == '0' ? '1' : '0'; }},
      {"does not fit",
       [](State& s) {
         s.info.domains = {"x", "z"};
       }},
      {"hidden is 0", [](State& s) { s.hidden = 0; }},
  };
  for (const auto& [words, spoil] : spoils) {
    on_first([&] {
      State bad = good;
      spoil(bad);
      write_state(generation, bad);
    });
    log_.clear();
    EXPECT_FALSE(folder().all_load(world_, log_).has_value()) << words;
    EXPECT_NE(log_.find(words.substr(0, words.find_last_not_of(' ') + 1)), std::string::npos) << log_;
  }
}

TEST_F(StateTest, AContradictionIsNeverCommitted) {
  StateFolder state = folder();
  expect_error(ExitCode::bug, {"counts add up"}, [&] {
    state.all_commit(world_, {snapshot_at(kBegun).saliency, {3, 3, 3, 3, 3}}, {});
  });
  EXPECT_EQ(names().size(), 0u);
}

TEST_F(StateTest, AFullDiskOnAnyRankLeavesWhatWasThere) {
  StateFolder state = folder();
  commit(world_, state, kBegun);
  for (int rank = 0; rank < world_.size(); ++rank) {
    for (const rlim_t bytes : {rlim_t{0}, rlim_t{100}, rlim_t{5000}}) {
      // All of a rank's hidden states fit into 5,000 bytes, rank 0's tables do not.
      if (rank > 0 && bytes == 5000) continue;
      std::optional<SizeLimit> limit;
      if (world_.rank() == rank) limit.emplace(bytes);
      expect_error(ExitCode::io, {"generation-000002.partial", "File too large"}, [&] {
        commit(world_, state, {3, 1, 1, 2, 1});
      });
      EXPECT_EQ(names(), (std::vector<std::string>{"generation-000001"}));
      world_.all_barrier();
    }
  }
  expect_at(folder().all_load(world_, log_), kBegun);
}

TEST_F(StateTest, AReaderThatFailsEndsTheCommit) {
  StateFolder state = folder();
  auto own = held_by(world_, kBegun);
  if (!own.empty()) own.back().read = [](float*) { throw Error(ExitCode::numerics, "gone"); };
  expect_error(ExitCode::numerics, {"gone"}, [&] { state.all_commit(world_, snapshot_at(kBegun), own); });
  EXPECT_EQ(names().size(), 0u);
}

TEST_F(StateTest, APlaceThatCannotBeMadeIsNamed) {
  on_first([&] { write_text(directory_ / "state", "a file"); });
  expect_error(ExitCode::io, {"state"}, [&] { folder().all_load(world_, log_); });
}

}  // namespace
}  // namespace reap
