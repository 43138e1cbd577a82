#include "shard/placement.hpp"

#include <algorithm>
#include <tuple>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::size_t kListed = 12;  // grids named in an error; more than that nobody reads

Range split(std::int64_t n, int parts, int part) { return {n * part / parts, n * (part + 1) / parts}; }

std::int64_t largest_part(std::int64_t n, int parts) { return (n + parts - 1) / parts; }

bool agrees(const Grid& grid, const Grid& asked) {
  return (asked.pp == 0 || asked.pp == grid.pp) && (asked.ep == 0 || asked.ep == grid.ep) &&
         (asked.dp == 0 || asked.dp == grid.dp);
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

std::int64_t activation_bytes(Compute compute) { return static_cast<std::int64_t>(size_of(activation_dtype(compute))); }

/// Bytes of a [rows, cols] matrix as held: fp8 with one fp32 scale per block, else no wider than activations.
std::int64_t matrix_bytes(const Model& model, Compute compute, std::int64_t rows, std::int64_t cols) {
  if (!model.fp8) return std::min(model.weight_element_bytes, activation_bytes(compute)) * rows * cols;
  const auto scale_blocks = [](std::int64_t n) { return (n + kScaleBlock - 1) / kScaleBlock; };
  return rows * cols + 4 * scale_blocks(rows) * scale_blocks(cols);
}

}  // namespace

Range expert_range(std::int64_t experts, int ep, int shard) { return split(experts, ep, shard); }

Range layer_range(std::int64_t layers, int pp, int stage) { return split(layers, pp, stage); }

std::string text_of(const Grid& grid) { return fmt::format("pp={} ep={} dp={}", grid.pp, grid.ep, grid.dp); }

bool preferred(const Grid& a, const Grid& b) { return std::tie(a.dp, a.pp) > std::tie(b.dp, b.pp); }

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
  std::sort(grids.begin(), grids.end(), preferred);
  return grids;
}

std::vector<Grid> grids_or_fail(const Model& model, int ranks, const Grid& asked, std::int64_t blocks) {
  std::vector<Grid> grids = usable_grids(model, ranks, asked, blocks);
  if (grids.empty()) fail_no_grid(model, ranks, asked, blocks);
  return grids;
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

std::int64_t weight_bytes_per_rank(const Model& model, const Grid& grid, Compute compute) {
  const auto matrix = [&](std::int64_t rows, std::int64_t cols) { return matrix_bytes(model, compute, rows, cols); };
  const std::int64_t q = model.attention.heads * model.attention.head_dim;
  const std::int64_t kv = model.attention.kv_heads * model.attention.head_dim;
  const std::int64_t attention = 2 * matrix(kv, model.hidden) + matrix(q, model.hidden) + matrix(model.hidden, q);
  const std::int64_t fp32 = 2 * model.hidden + q + kv + model.router.experts * (model.hidden + 1);  // norms, router
  const std::int64_t expert = 2 * matrix(model.expert.inner, model.hidden) + matrix(model.hidden, model.expert.inner);
  const std::int64_t layer = attention + 4 * fp32 + largest_part(model.router.experts, grid.ep) * expert;
  const std::int64_t embedding = model.embedding_element_bytes * model.vocab * model.hidden;
  // The first part of a split is never larger than the others: the embedding goes with the smaller stage.
  return std::max(largest_part(model.layers, grid.pp) * layer,
                  layer_range(model.layers, grid.pp, 0).size() * layer + embedding);
}

}  // namespace reap
