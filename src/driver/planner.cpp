#include "driver/planner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "driver/progress.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::size_t kListed = 3;  // candidates named in an error
constexpr double kSameTime = 1.01;  // estimates closer than this are equal
constexpr int kMostRanks = 4096;    // looked at when saying how many would fit

/// How a streamed rank divides its memory: two layers' weights, so that the next one is read while one computes, and as
/// many hidden states as the rest holds; when that is short of one block, weights give way down to one layer.
/// Where not even that fits, the least that streaming needs.
Holding streamed_holding(const PlanningTask& task, const Grid& grid) {
  const Workload& work = task.work;
  const std::int64_t layer = layer_bytes(task.model, grid, work);
  const std::int64_t row = 4 * task.model.hidden;
  const std::int64_t rows = work.column_rows(grid.ep * grid.dp);
  Holding holding{.streamed = true, .weight_window = 2 * layer, .wave_rows = rows};
  if (task.memory_bytes == 0) return holding;
  const std::int64_t least_rows = work.max_rows();
  holding.wave_rows = least_rows;
  const std::int64_t spare = task.memory_bytes - footprint_of(task.model, grid, work, holding).total();
  if (spare >= 0) {
    holding.wave_rows = work.scratch ? rows : std::min(rows, least_rows + spare / row);
  } else {
    holding.weight_window = std::max(layer, 2 * layer + spare);
    if (work.scratch) holding.wave_rows = rows;
  }
  return holding;
}

/// A stage has nothing to do until the first wave is nearly through the stages before: several waves of fewer rows may
/// be quicker than one that fills the memory, although each reads the weights again.
void settle_waves(const PlanningTask& task, const Grid& grid, Holding& holding) {
  const auto seconds = [&](std::int64_t rows) {
    Holding trial = holding;
    trial.wave_rows = rows;
    return pass_time(task.model, grid, task.work, trial, task.machine).total();
  };
  for (std::int64_t rows = holding.wave_rows / 2; rows >= task.work.max_rows(); rows /= 2) {
    if (seconds(rows) < seconds(holding.wave_rows)) holding.wave_rows = rows;
  }
}

Candidate evaluate(const PlanningTask& task, const Grid& grid, bool streamed) {
  Candidate candidate;
  candidate.grid = grid;
  if (streamed) {
    candidate.holding = streamed_holding(task, grid);
    if (grid.pp > 1) settle_waves(task, grid, candidate.holding);
  }
  candidate.need = footprint_of(task.model, grid, task.work, candidate.holding);
  candidate.fits = task.memory_bytes == 0 || candidate.need.total() <= task.memory_bytes;
  candidate.waves = waves_of(task.work, grid, candidate.holding);
  candidate.time = pass_time(task.model, grid, task.work, candidate.holding, task.machine);
  return candidate;
}

std::int64_t block_count(const Workload& work) { return static_cast<std::int64_t>(work.blocks.size()); }

std::string described(const Candidate& candidate) {
  const Footprint& need = candidate.need;
  return fmt::format("{} {} needs {}: {} for weights, {} to work in", text_of(candidate.grid),
                     candidate.holding.streamed ? "streamed" : "resident", readable_bytes(need.total()),
                     readable_bytes(need.weights + need.reading),
                     readable_bytes(need.total() - need.weights - need.reading));
}

/// The fewest ranks, above those there are, that could run the task.
std::optional<int> ranks_that_fit(const PlanningTask& task) {
  const auto most = static_cast<int>(std::min<std::int64_t>(kMostRanks, task.model.layers * block_count(task.work)));
  for (int ranks = task.ranks + 1; ranks <= most; ++ranks) {
    for (const Grid& grid : usable_grids(task.model, ranks, task.asked, block_count(task.work))) {
      for (const bool streamed : {false, true}) {
        const bool wanted = task.weights != (streamed ? WeightsMode::resident : WeightsMode::stream);
        if (wanted && evaluate(task, grid, streamed).fits) return ranks;
      }
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<Candidate> candidates(const PlanningTask& task) {
  REAP_CHECK(!task.work.blocks.empty(), "a calibration pass over no blocks");
  std::vector<Candidate> all;
  for (const Grid& grid : grids_or_fail(task.model, task.ranks, task.asked, block_count(task.work))) {
    if (task.weights != WeightsMode::stream) all.push_back(evaluate(task, grid, false));
    if (task.weights != WeightsMode::resident) all.push_back(evaluate(task, grid, true));
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return std::tuple(!a.fits, a.time.total()) < std::tuple(!b.fits, b.time.total());
  });
  return all;
}

const Candidate* chosen_of(const std::vector<Candidate>& all) {
  for (const bool streamed : {false, true}) {
    const Candidate* best = nullptr;
    double limit = 0;
    for (const Candidate& candidate : all) {  // quickest first
      if (!candidate.fits || candidate.holding.streamed != streamed) continue;
      if (best == nullptr) limit = candidate.time.total() * kSameTime;
      if (best == nullptr || (candidate.time.total() <= limit && preferred(candidate.grid, best->grid)))
        best = &candidate;
    }
    if (best != nullptr) return best;
  }
  return nullptr;
}

std::string why_nothing_fits(const PlanningTask& task, std::vector<Candidate> all) {
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.need.total() < b.need.total(); });
  std::string needs;
  for (std::size_t i = 0; i < std::min(all.size(), kListed); ++i) needs += "; " + described(all[i]);
  std::string help;
  if (task.weights == WeightsMode::resident) {
    PlanningTask other = task;
    other.weights = WeightsMode::stream;
    if (chosen_of(candidates(other)) != nullptr) help = "--weights stream would fit, ";
  }
  if (const std::optional<int> ranks = ranks_that_fit(task)) help += fmt::format("{} ranks would fit, ", *ranks);
  const Footprint& least = all.front().need;
  if (least.forward + least.hidden + least.links > least.weights / 2) {
    help += "a smaller --block-tokens or shorter samples need less to work in, ";
  }
  return fmt::format("the model and its calibration do not fit {} rank{} of {}{}; {}a --memory-budget of {} would do",
                     task.ranks, task.ranks == 1 ? "" : "s", readable_bytes(task.memory_bytes), needs, help,
                     least.total());
}

Candidate choose_candidate(const PlanningTask& task) {
  std::vector<Candidate> all = candidates(task);
  if (const Candidate* chosen = chosen_of(all)) return *chosen;
  fail(ExitCode::usage, "{}", why_nothing_fits(task, std::move(all)));
}

}  // namespace reap
