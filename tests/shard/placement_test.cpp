#include "shard/placement.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "kernels/error.hpp"

namespace reap {
namespace {

/// 7 layers of 10 experts; small enough to count its bytes by hand.
Model small_model() {
  Model model{};
  model.layers = 7;
  model.hidden = 8;
  model.vocab = 100;
  model.attention = {.heads = 2, .kv_heads = 1, .head_dim = 4, .rotary_dim = 2, .rope_theta = 1e4, .norm_eps = 1e-6F};
  model.router = {.experts = 10, .top_k = 2};
  model.expert = {.inner = 6};
  return model;
}

constexpr std::int64_t kManyBlocks = 1000;
// q and o 8x8, k and v 4x8: 192 elements; norms 2x8 + 8 + 4 = 28, gate 10x8 and bias 10: 118 floats; an expert 3x6x8 =
// 144.
constexpr std::int64_t kDenseBytes = 2 * 192 + 4 * 118;
constexpr std::int64_t kExpertBytes = 2 * 144;
constexpr std::int64_t kEmbeddingBytes = 2 * 100 * 8;

std::int64_t weight_bytes(const Model& model, const Grid& grid) {
  return weight_bytes_per_rank(model, grid, Compute::bf16);
}

std::string usage_error(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
  return "nothing thrown";
}

TEST(Placement, SplitsAreContiguousAndBalanced) {
  for (const std::int64_t n : {1, 2, 7, 10, 62, 256}) {
    for (int parts = 1; parts <= std::min<std::int64_t>(n, 9); ++parts) {
      std::int64_t next = 0;
      for (int part = 0; part < parts; ++part) {
        const Range range = layer_range(n, parts, part);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.size(), n / parts);
        EXPECT_LE(range.size(), (n + parts - 1) / parts);
        EXPECT_EQ(expert_range(n, parts, part).begin, range.begin);
        EXPECT_EQ(expert_range(n, parts, part).end, range.end);
        next = range.end;
      }
      EXPECT_EQ(next, n);
      EXPECT_EQ(layer_range(n, parts, 0).size(), n / parts)
          << "the stage with the embedding has no layer more than others";
    }
  }
}

TEST(Placement, EveryRankHasItsOwnPlace) {
  const Model model = small_model();
  const Grid grid{.pp = 3, .ep = 2, .dp = 2};
  int rank = 0;
  for (int replica = 0; replica < grid.dp; ++replica) {
    for (int stage = 0; stage < grid.pp; ++stage) {
      for (int shard = 0; shard < grid.ep; ++shard, ++rank) {
        const Placement at = place(model, grid, rank);
        EXPECT_EQ(at.replica, replica);
        EXPECT_EQ(at.stage, stage);
        EXPECT_EQ(at.shard, shard);
        EXPECT_EQ(at.layers.begin, layer_range(7, 3, stage).begin);
        EXPECT_EQ(at.experts.end, expert_range(10, 2, shard).end);
        EXPECT_EQ(at.column(), replica * 2 + shard);
        EXPECT_EQ(at.columns(), 4);
      }
    }
  }
  EXPECT_THROW(place(model, grid, rank), Error);
}

TEST(Placement, BytesCountWeightsAsStored) {
  Model model = small_model();
  EXPECT_EQ(weight_bytes(model, {1, 1, 1}), 7 * (kDenseBytes + 10 * kExpertBytes) + kEmbeddingBytes);
  EXPECT_EQ(weight_bytes(model, {1, 4, 1}), 7 * (kDenseBytes + 3 * kExpertBytes) + kEmbeddingBytes);
  EXPECT_EQ(weight_bytes(model, {1, 1, 5}), weight_bytes(model, {1, 1, 1}));
  // Two stages have 3 and 4 layers, the embedding is with the 3: here it weighs less than a layer.
  EXPECT_EQ(weight_bytes(model, {2, 1, 1}), 4 * (kDenseBytes + 10 * kExpertBytes));
  model.vocab = 1000;
  EXPECT_EQ(weight_bytes(model, {2, 1, 1}), 3 * (kDenseBytes + 10 * kExpertBytes) + 10 * kEmbeddingBytes);

  model.vocab = 100;
  model.fp8 = true;  // one byte an element, and one scale for each of the small matrices
  EXPECT_EQ(weight_bytes(model, {7, 10, 1}), (192 + 4 * 4 + 4 * 118) + (144 + 3 * 4) + kEmbeddingBytes);
  model.hidden = 129;  // two scale blocks across
  model.layers = 1;
  EXPECT_EQ(weight_bytes(model, {1, 10, 1}), 129 * (8 + 8 + 4 + 4) + 4 * 4 * 2 + 4 * (2 * 129 + 8 + 4 + 10 * 130) +
                                                 3 * (6 * 129 + 4 * 2) + 2 * 100 * 129);
}

TEST(Placement, BytesCountF32WeightsAsComputed) {
  Model model = small_model();
  model.weight_element_bytes = 4;
  model.embedding_element_bytes = 4;
  const std::int64_t layer = kDenseBytes + 10 * kExpertBytes;
  EXPECT_EQ(weight_bytes_per_rank(model, {1, 1, 1}, Compute::bf16), 7 * layer + 2 * kEmbeddingBytes);
  EXPECT_EQ(weight_bytes_per_rank(model, {1, 1, 1}, Compute::fp32),
            7 * (layer + 2 * 192 + 10 * kExpertBytes) + 2 * kEmbeddingBytes);
}

/// The grids as (pp, ep, dp).
std::vector<std::array<int, 3>> usable(int ranks, const Grid& asked, std::int64_t blocks) {
  std::vector<std::array<int, 3>> result;
  for (const Grid& grid : usable_grids(small_model(), ranks, asked, blocks)) {
    result.push_back({grid.pp, grid.ep, grid.dp});
  }
  return result;
}

TEST(UsableGrids, ReplicasThenStagesThenShards) {
  using Grids = std::vector<std::array<int, 3>>;
  EXPECT_EQ(usable(1, {}, 1), (Grids{{1, 1, 1}}));
  EXPECT_EQ(usable(4, {}, kManyBlocks), (Grids{{1, 1, 4}, {2, 1, 2}, {1, 2, 2}, {4, 1, 1}, {2, 2, 1}, {1, 4, 1}}));
  EXPECT_EQ(usable(4, {}, 2), (Grids{{2, 1, 2}, {4, 1, 1}, {2, 2, 1}})) << "two blocks cannot feed four columns";
  EXPECT_EQ(usable(4, {}, 1), (Grids{{4, 1, 1}}));
  EXPECT_EQ(usable(8, {}, 8),
            (Grids{{1, 1, 8}, {2, 1, 4}, {1, 2, 4}, {4, 1, 2}, {2, 2, 2}, {1, 4, 2}, {4, 2, 1}, {2, 4, 1}, {1, 8, 1}}))
      << "never more stages than layers";
}

TEST(UsableGrids, KeepWhatIsAsked) {
  using Grids = std::vector<std::array<int, 3>>;
  EXPECT_EQ(usable(4, {2, 2, 1}, kManyBlocks), (Grids{{2, 2, 1}}));
  EXPECT_EQ(usable(4, {.pp = 2}, kManyBlocks), (Grids{{2, 1, 2}, {2, 2, 1}}));
  EXPECT_EQ(usable(12, {.ep = 2, .dp = 2}, kManyBlocks), (Grids{{3, 2, 2}}));
  EXPECT_TRUE(usable(4, {.pp = 3}, kManyBlocks).empty());
}

TEST(UsableGrids, SaysWhichGridsArePossible) {
  const Model model = small_model();
  std::string text = usage_error([&] { grids_or_fail(model, 4, {.pp = 3}, kManyBlocks); });
  EXPECT_NE(text.find("no grid of 4 ranks has --pp 3"), std::string::npos) << text;
  EXPECT_NE(text.find("pp=1 ep=1 dp=4, pp=2 ep=1 dp=2"), std::string::npos) << text;

  text = usage_error([&] { grids_or_fail(model, 8, {.pp = 8}, kManyBlocks); });  // 7 layers only
  EXPECT_NE(text.find("at most the 7 layers"), std::string::npos) << text;

  // 11 is prime, above layers and experts, and there are 5 blocks: only fewer ranks help.
  text = usage_error([&] { grids_or_fail(model, 11, {}, 5); });
  EXPECT_NE(text.find("11 ranks cannot be used"), std::string::npos) << text;
  EXPECT_NE(text.find("use 10 ranks"), std::string::npos) << text;
}

}  // namespace
}  // namespace reap
