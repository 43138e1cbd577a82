#include "shard/placement.hpp"

#include <algorithm>
#include <optional>
#include <tuple>

#include "kernels/check.hpp"
#include "kernels/fields.hpp"

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

struct Need {
  std::int64_t weights = 0, working = 0;
  std::int64_t bytes() const { return weights + working; }
};

Need need_of(const Model& model, const Grid& grid, const Workload& work) {
  return {weight_bytes_per_rank(model, grid, work.compute), working_bytes_per_rank(model, grid, work)};
}

bool fits(const Model& model, const Grid& grid, const Workload& work, std::int64_t memory_bytes) {
  return need_of(model, grid, work).bytes() <= memory_bytes;
}

/// The fewest ranks, above `ranks`, that have memory enough.
std::optional<int> ranks_that_fit(const Model& model, int ranks, const Grid& asked, const Workload& work,
                                  std::int64_t memory_bytes) {
  const std::int64_t most = model.layers * model.router.experts;
  for (int n = ranks + 1; n <= most; ++n) {
    const std::vector<Grid> grids = usable_grids(model, n, asked, work.blocks);
    if (std::any_of(grids.begin(), grids.end(),
                    [&](const Grid& grid) { return fits(model, grid, work, memory_bytes); })) {
      return n;
    }
  }
  return std::nullopt;
}

std::string bytes_text(std::int64_t bytes) {
  return fmt::format("{} bytes ({:.1f} GiB)", bytes, static_cast<double>(bytes) / kGiB);
}

[[noreturn]] void fail_no_memory(const Model& model, int ranks, const Grid& asked, const Workload& work,
                                 std::int64_t memory_bytes, std::vector<Grid> grids) {
  const auto need = [&](const Grid& grid) { return need_of(model, grid, work); };
  std::stable_sort(grids.begin(), grids.end(),
                   [&](const Grid& a, const Grid& b) { return need(a).bytes() < need(b).bytes(); });
  grids.resize(std::min(grids.size(), std::size_t{3}));
  std::string needs;
  for (const Grid& grid : grids) {
    needs += fmt::format("{}{} needs {} for weights and {} to work in", needs.empty() ? "" : ", ", text_of(grid),
                         bytes_text(need(grid).weights), bytes_text(need(grid).working));
  }
  const std::optional<int> enough = ranks_that_fit(model, ranks, asked, work, memory_bytes);
  const Need least = need(grids.front());
  fail(ExitCode::usage, "the model and its calibration do not fit {} ranks of {}: {}; {}{}", ranks,
       bytes_text(memory_bytes), needs,
       enough ? fmt::format("{} ranks would fit", *enough) : "no number of ranks would fit: give each more memory",
       least.working > least.weights ? "; a smaller --block-tokens or shorter samples need less to work in" : "");
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

Grid choose_grid(const Model& model, int ranks, const Grid& asked, const Workload& work, std::int64_t memory_bytes) {
  std::vector<Grid> candidates = usable_grids(model, ranks, asked, work.blocks);
  if (candidates.empty()) fail_no_grid(model, ranks, asked, work.blocks);
  if (memory_bytes == 0) return candidates.front();
  const auto chosen = std::find_if(candidates.begin(), candidates.end(),
                                   [&](const Grid& grid) { return fits(model, grid, work, memory_bytes); });
  if (chosen == candidates.end()) fail_no_memory(model, ranks, asked, work, memory_bytes, std::move(candidates));
  return *chosen;
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

std::int64_t working_bytes_per_rank(const Model& model, const Grid& grid, const Workload& work) {
  const std::int64_t act = activation_bytes(work.compute);
  const std::int64_t q = model.attention.heads * model.attention.head_dim;
  const std::int64_t kv = model.attention.kv_heads * model.attention.head_dim;
  // Per row of the block: x, the norms' outputs and rows of other shards; q, k and v before and after RoPE and the
  // attention's output; the router's logits; token, position and group.
  const std::int64_t row =
      (8 + act * (1 + grid.ep)) * model.hidden + (4 + act) * (q + 2 * kv) + act * q + 4 * model.router.experts + 3 * 4;
  // Per slot: gate value, norm and largest magnitude; four indices and their three copies on the host; the experts'
  // inner activations, at most fp32; their output. With shards, as many places again for outputs that come back.
  const std::int64_t place = 8 + act * model.hidden;
  const std::int64_t slot = 4 + 7 * 4 * grid.ep + 4 * model.expert.inner + (grid.ep > 1 ? 2 : 1) * place;
  // Of rows and slots on their way between shards the larger, both ways: a dispatch may send every row to every shard,
  // a collect returns each slot.
  const std::int64_t message = grid.ep > 1 ? 2 * std::max<std::int64_t>(grid.ep - 1, model.router.top_k) * place : 0;
  // Blocks on their way between stages: two from the stage before, two to the one behind.
  const std::int64_t berths = grid.pp == 1 ? 0 : grid.pp == 2 ? 2 : 4;
  // The sums of the own layers and, in the end, of all.
  const std::int64_t cells = (largest_part(model.layers, grid.pp) + model.layers) * work.groups * model.router.experts;
  return work.max_rows * (row + model.router.top_k * slot + message + berths * 4 * model.hidden) +
         cells * (8 * kSumsPerExpert + 4);
}

}  // namespace reap
