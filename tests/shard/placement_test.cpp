#include "shard/placement.hpp"

#include <gtest/gtest.h>

#include "kernels/error.hpp"
#include "kernels/fields.hpp"

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

TEST(Placement, WorkingBytesFollowRowsAndGrid) {
  const Model model = small_model();
  const auto bytes = [&](const Grid& grid, std::int64_t rows, Compute compute) {
    return working_bytes_per_rank(model, grid, {.max_rows = rows, .compute = compute});
  };
  // Widths: hidden 8, q 8, k and v 4 each, 10 logits, 2 slots a row with inner 6. fp32 per row: 4 of hidden, 2 of
  // q, k and v, 1 of q, the logits, 3 indices; per slot: 3 values, 7 indices, inner, output.
  constexpr std::int64_t kRow = 4 * (4 * 8 + 2 * 16 + 8 + 10 + 3);
  constexpr std::int64_t kSlot = 4 * (3 + 7 + 6 + 8);
  EXPECT_EQ(bytes({1, 1, 1}, 1, Compute::fp32), kRow + 2 * kSlot);
  EXPECT_EQ(bytes({1, 1, 1}, 100, Compute::fp32), 100 * (kRow + 2 * kSlot));
  EXPECT_EQ(bytes({1, 1, 9}, 1, Compute::fp32), kRow + 2 * kSlot);
  // Half of: 2 of hidden, 1 of q, k and v, 1 of q; and of each slot's output.
  EXPECT_EQ(bytes({1, 1, 1}, 1, Compute::bf16), kRow + 2 * kSlot - 2 * (2 * 8 + 16 + 8 + 2 * 8));
  EXPECT_EQ(bytes({2, 1, 1}, 1, Compute::fp32), kRow + 2 * kSlot + 2 * 4 * 8);
  EXPECT_EQ(bytes({3, 1, 1}, 1, Compute::fp32), kRow + 2 * kSlot + 4 * 4 * 8);
  // Three shards: rows of 2 more, indices of as many more, an output (of 8 and 2 values) again, 2 x 2 in messages.
  EXPECT_EQ(bytes({1, 3, 1}, 1, Compute::fp32), kRow + 2 * kSlot + 4 * (2 * 8 + 2 * (2 * 7 + 10) + 4 * 10));
  // Tables of 7 own layers and of all 7, 10 experts, 4 groups: they do not depend on rows.
  EXPECT_EQ(working_bytes_per_rank(model, {1, 1, 1}, {.groups = 4}), 14 * 10 * 4 * (8 * kSumsPerExpert + 4));
}

TEST(ChooseGrid, PrefersReplicasThenStagesThenShards) {
  const Model model = small_model();
  const auto chosen = [&](int ranks, const Grid& asked, std::int64_t blocks, std::int64_t memory) {
    const Grid grid = choose_grid(model, ranks, asked, {.blocks = blocks}, memory);
    return std::array{grid.pp, grid.ep, grid.dp};
  };
  EXPECT_EQ(chosen(1, {}, 1, 0), (std::array{1, 1, 1}));
  EXPECT_EQ(chosen(4, {}, kManyBlocks, 0), (std::array{1, 1, 4}));
  EXPECT_EQ(chosen(4, {}, 2, 0), (std::array{2, 1, 2}));  // two blocks cannot feed four columns
  EXPECT_EQ(chosen(4, {}, 1, 0), (std::array{4, 1, 1}));
  EXPECT_EQ(chosen(8, {}, 4, 0), (std::array{2, 1, 4}));

  const std::int64_t whole = weight_bytes(model, {1, 1, 1});
  EXPECT_EQ(chosen(4, {}, kManyBlocks, whole), (std::array{1, 1, 4}));
  EXPECT_EQ(chosen(4, {}, kManyBlocks, whole - 1), (std::array{2, 1, 2}));
  const std::int64_t quarter = weight_bytes(model, {4, 1, 1});
  EXPECT_EQ(chosen(4, {}, kManyBlocks, quarter), (std::array{4, 1, 1}));
  EXPECT_EQ(chosen(70, {}, kManyBlocks, weight_bytes(model, {7, 10, 1})), (std::array{7, 10, 1}));
}

TEST(ChooseGrid, KeepsWhatIsAsked) {
  const Model model = small_model();
  const auto chosen = [&](int ranks, const Grid& asked) {
    const Grid grid = choose_grid(model, ranks, asked, {.blocks = kManyBlocks}, 0);
    return std::array{grid.pp, grid.ep, grid.dp};
  };
  EXPECT_EQ(chosen(4, {2, 2, 1}), (std::array{2, 2, 1}));
  EXPECT_EQ(chosen(4, {.pp = 2}), (std::array{2, 1, 2}));
  EXPECT_EQ(chosen(4, {.ep = 4}), (std::array{1, 4, 1}));
  EXPECT_EQ(chosen(4, {.dp = 1}), (std::array{4, 1, 1}));
  EXPECT_EQ(chosen(12, {.ep = 2, .dp = 2}), (std::array{3, 2, 2}));
}

TEST(ChooseGrid, SaysWhichGridsArePossible) {
  const Model model = small_model();
  std::string text = usage_error([&] { choose_grid(model, 4, {.pp = 3}, {.blocks = kManyBlocks}, 0); });
  EXPECT_NE(text.find("no grid of 4 ranks has --pp 3"), std::string::npos) << text;
  EXPECT_NE(text.find("pp=1 ep=1 dp=4, pp=2 ep=1 dp=2"), std::string::npos) << text;

  text = usage_error([&] { choose_grid(model, 8, {.pp = 8}, {.blocks = kManyBlocks}, 0); });  // 7 layers only
  EXPECT_NE(text.find("at most the 7 layers"), std::string::npos) << text;

  // 11 is prime, above layers and experts, and there are 5 blocks: only fewer ranks help.
  text = usage_error([&] { choose_grid(model, 11, {}, {.blocks = 5}, 0); });
  EXPECT_NE(text.find("11 ranks cannot be used"), std::string::npos) << text;
  EXPECT_NE(text.find("use 10 ranks"), std::string::npos) << text;
}

TEST(ChooseGrid, SaysWhatTheBestGridsNeed) {
  const Model model = small_model();
  const std::int64_t enough = weight_bytes(model, {3, 1, 1});
  const std::string text = usage_error([&] { choose_grid(model, 2, {}, {.blocks = kManyBlocks}, enough); });
  EXPECT_NE(text.find("do not fit 2 ranks"), std::string::npos) << text;
  const std::string best = "pp=2 ep=1 dp=1 needs " + std::to_string(weight_bytes(model, {2, 1, 1}));
  EXPECT_NE(text.find(best), std::string::npos) << text;
  EXPECT_NE(text.find("3 ranks would fit"), std::string::npos) << text;

  EXPECT_EQ(text.find("--block-tokens"), std::string::npos) << text;

  const std::string never = usage_error([&] { choose_grid(model, 2, {}, {.blocks = kManyBlocks}, 100); });
  EXPECT_NE(never.find("no number of ranks would fit"), std::string::npos) << never;
}

TEST(ChooseGrid, CountsWorkingMemory) {
  const Model model = small_model();
  const Workload work{.blocks = kManyBlocks, .max_rows = 1000, .compute = Compute::fp32};
  const auto needed = [&](const Grid& grid) {
    return weight_bytes_per_rank(model, grid, work.compute) + working_bytes_per_rank(model, grid, work);
  };
  const std::int64_t whole = needed({1, 1, 1});
  EXPECT_EQ(choose_grid(model, 2, {}, work, whole).dp, 2);
  // Stages and shards take from the weights, but add more than that to the work.
  ASSERT_GT(needed({2, 1, 1}), whole);
  ASSERT_GT(needed({1, 2, 1}), whole);
  const std::string text = usage_error([&] { choose_grid(model, 2, {}, work, whole - 1); });
  EXPECT_NE(text.find(std::to_string(weight_bytes_per_rank(model, {1, 1, 1}, work.compute)) + " bytes"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find(std::to_string(working_bytes_per_rank(model, {1, 1, 1}, work)) + " bytes"), std::string::npos)
      << text;
  EXPECT_NE(text.find("a smaller --block-tokens or shorter samples"), std::string::npos) << text;
}

}  // namespace
}  // namespace reap
