#include "shard/placement.hpp"

#include <algorithm>
#include <optional>
#include <tuple>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr std::size_t kListed = 12;  // grids named in an error; more than that nobody reads

Range split(std::int64_t n, int parts, int part) { return {n * part / parts, n * (part + 1) / parts}; }

std::int64_t largest_part(std::int64_t n, int parts) { return (n + parts - 1) / parts; }

std::string text_of(const Grid& grid) { return fmt::format("pp={} ep={} dp={}", grid.pp, grid.ep, grid.dp); }

bool agrees(const Grid& grid, const Grid& asked) {
  return (asked.pp == 0 || asked.pp == grid.pp) && (asked.ep == 0 || asked.ep == grid.ep) &&
         (asked.dp == 0 || asked.dp == grid.dp);
}

/// Every grid of exactly `ranks` ranks, as asked, in which each rank has layers, experts and blocks. Best first: most
/// replicas, which need no traffic at all, then most stages, whose traffic is one hand-over per block.
std::vector<Grid> usable_grids(const Model& model, int ranks, const Grid& asked, std::int64_t blocks) {
  std::vector<Grid> grids;
  for (int pp = 1; pp <= ranks && pp <= model.layers; ++pp) {
    if (ranks % pp != 0) continue;
    for (int ep = 1; ep <= ranks / pp && ep <= model.router.experts; ++ep) {
      if (ranks / pp % ep != 0) continue;
      const Grid grid{pp, ep, ranks / pp / ep};
      if (std::int64_t{grid.ep} * grid.dp <= blocks && agrees(grid, asked)) grids.push_back(grid);
    }
  }
  std::sort(grids.begin(), grids.end(),
            [](const Grid& a, const Grid& b) { return std::tie(a.dp, a.pp) > std::tie(b.dp, b.pp); });
  return grids;
}

std::string list_of(const std::vector<Grid>& grids) {
  std::string text;
  for (std::size_t i = 0; i < std::min(grids.size(), kListed); ++i) text += (i == 0 ? "" : ", ") + text_of(grids[i]);
  if (grids.size() > kListed) text += fmt::format(", and {} more", grids.size() - kListed);
  return text;
}

std::string asked_text(const Grid& asked) {
  std::string text;
  const auto add = [&](const char* name, int value) {
    if (value != 0) text += fmt::format(" --{} {}", name, value);
  };
  add("pp", asked.pp);
  add("ep", asked.ep);
  add("dp", asked.dp);
  return text;
}

/// The most ranks up to `ranks` that the model and the blocks can keep busy.
int most_usable_ranks(const Model& model, int ranks, std::int64_t blocks) {
  while (ranks > 1 && usable_grids(model, ranks, {}, blocks).empty()) --ranks;
  return ranks;
}

[[noreturn]] void fail_no_grid(const Model& model, int ranks, const Grid& asked, std::int64_t blocks) {
  const std::vector<Grid> usable = usable_grids(model, ranks, {}, blocks);
  const std::string limits =
      fmt::format("pp is at most the {} layers, ep at most the {} experts, dp x ep at most the {} blocks", model.layers,
                  model.router.experts, blocks);
  if (usable.empty()) {
    fail(ExitCode::usage, "{} ranks cannot be used: {} (smaller --block-tokens makes more blocks); use {} ranks", ranks,
         limits, most_usable_ranks(model, ranks, blocks));
  }
  fail(ExitCode::usage, "no grid of {} ranks has{}: {}; possible are {}", ranks, asked_text(asked), limits,
       list_of(usable));
}

/// The grid of these that asks least of a rank's memory.
const Grid& smallest(const Model& model, const std::vector<Grid>& grids) {
  return *std::min_element(grids.begin(), grids.end(), [&](const Grid& a, const Grid& b) {
    return weight_bytes_per_rank(model, a) < weight_bytes_per_rank(model, b);
  });
}

/// The fewest ranks, above `ranks`, whose weights fit.
std::optional<int> ranks_that_fit(const Model& model, int ranks, const Grid& asked, std::int64_t blocks,
                                  std::int64_t memory_bytes) {
  const std::int64_t most = model.layers * model.router.experts;
  for (int n = ranks + 1; n <= most; ++n) {
    const std::vector<Grid> grids = usable_grids(model, n, asked, blocks);
    if (!grids.empty() && weight_bytes_per_rank(model, smallest(model, grids)) <= memory_bytes) return n;
  }
  return std::nullopt;
}

[[noreturn]] void fail_no_memory(const Model& model, int ranks, const Grid& asked, std::int64_t blocks,
                                 std::int64_t memory_bytes, std::vector<Grid> grids) {
  std::stable_sort(grids.begin(), grids.end(), [&](const Grid& a, const Grid& b) {
    return weight_bytes_per_rank(model, a) < weight_bytes_per_rank(model, b);
  });
  grids.resize(std::min(grids.size(), std::size_t{3}));
  std::string needs;
  for (const Grid& grid : grids) {
    const std::int64_t bytes = weight_bytes_per_rank(model, grid);
    needs += fmt::format("{}{} needs {} bytes ({:.1f} GiB)", needs.empty() ? "" : ", ", text_of(grid), bytes,
                         static_cast<double>(bytes) / kGiB);
  }
  const std::optional<int> enough = ranks_that_fit(model, ranks, asked, blocks, memory_bytes);
  fail(ExitCode::usage, "the weights do not fit {} ranks of {} bytes ({:.1f} GiB): {}; {}", ranks, memory_bytes,
       static_cast<double>(memory_bytes) / kGiB, needs,
       enough ? fmt::format("{} ranks would fit", *enough) : "no number of ranks would fit: give each more memory");
}

/// Bytes of a [rows, cols] matrix as stored: fp8 with one fp32 scale per block, else two bytes an element.
std::int64_t matrix_bytes(const Model& model, std::int64_t rows, std::int64_t cols) {
  if (!model.fp8) return 2 * rows * cols;
  const auto scale_blocks = [](std::int64_t n) { return (n + kScaleBlock - 1) / kScaleBlock; };
  return rows * cols + 4 * scale_blocks(rows) * scale_blocks(cols);
}

}  // namespace

Range expert_range(std::int64_t experts, int ep, int shard) { return split(experts, ep, shard); }

Range layer_range(std::int64_t layers, int pp, int stage) { return split(layers, pp, stage); }

Grid choose_grid(const Model& model, int ranks, const Grid& asked, std::int64_t blocks, std::int64_t memory_bytes) {
  std::vector<Grid> candidates = usable_grids(model, ranks, asked, blocks);
  if (candidates.empty()) fail_no_grid(model, ranks, asked, blocks);
  if (memory_bytes == 0) return candidates.front();
  const auto fits = std::find_if(candidates.begin(), candidates.end(),
                                 [&](const Grid& grid) { return weight_bytes_per_rank(model, grid) <= memory_bytes; });
  if (fits == candidates.end()) fail_no_memory(model, ranks, asked, blocks, memory_bytes, std::move(candidates));
  return *fits;
}

Placement place(const Model& model, const Grid& grid, int rank) {
  REAP_CHECK(rank >= 0 && rank < grid.pp * grid.ep * grid.dp, "rank {} is not in the grid {}", rank, text_of(grid));
  Placement placement;
  placement.grid = grid;
  placement.shard = rank % grid.ep;
  placement.stage = rank / grid.ep % grid.pp;
  placement.replica = rank / grid.ep / grid.pp;
  placement.layers = layer_range(model.layers, grid.pp, placement.stage);
  placement.experts = expert_range(model.router.experts, grid.ep, placement.shard);
  return placement;
}

std::int64_t weight_bytes_per_rank(const Model& model, const Grid& grid) {
  const std::int64_t q = model.attention.heads * model.attention.head_dim;
  const std::int64_t kv = model.attention.kv_heads * model.attention.head_dim;
  const std::int64_t attention = 2 * matrix_bytes(model, kv, model.hidden) + matrix_bytes(model, q, model.hidden) +
                                 matrix_bytes(model, model.hidden, q);
  const std::int64_t fp32 = 2 * model.hidden + q + kv + model.router.experts * (model.hidden + 1);  // norms, router
  const std::int64_t expert =
      2 * matrix_bytes(model, model.expert.inner, model.hidden) + matrix_bytes(model, model.hidden, model.expert.inner);
  const std::int64_t layer = attention + 4 * fp32 + largest_part(model.router.experts, grid.ep) * expert;
  const std::int64_t embedding = 2 * model.vocab * model.hidden;
  // The first part of a split is never larger than the others: the embedding goes with the smaller stage.
  return std::max(largest_part(model.layers, grid.pp) * layer,
                  layer_range(model.layers, grid.pp, 0).size() * layer + embedding);
}

}  // namespace reap
