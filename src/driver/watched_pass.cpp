#include "driver/watched_pass.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "driver/resources.hpp"
#include "shard/schedule.hpp"

namespace reap {
namespace {

/// Rows times layers that are still to be done: by all ranks, and by one.
struct Remaining {
  std::int64_t all = 0, own = 0;
};
Remaining remaining_of(const PassPlan& plan) {
  const auto variants = static_cast<std::int64_t>(plan.variants.size());
  const std::vector<std::int64_t>& saved = plan.start.snapshot.next_layer;
  const std::vector<std::int64_t> next =
      saved.empty() ? std::vector<std::int64_t>(plan.blocks.size() * plan.variants.size()) : saved;
  const Schedule schedule(plan.blocks, variants, next, plan.model.layers, plan.placement.columns(), 0);
  Remaining result;
  for (std::int64_t step = 0; step < schedule.steps(); ++step) {
    for (int column = 0; column < plan.placement.columns(); ++column) {
      const std::int64_t block = schedule.block(step, column);
      if (block == Schedule::kNone) continue;
      const std::int64_t rows = plan.blocks[static_cast<std::size_t>(block / variants)].rows();
      const std::int64_t first = schedule.first_layer(block);
      result.all += rows * (plan.model.layers - first);
      if (column != plan.placement.column()) continue;
      const Range& layers = plan.placement.layers;
      result.own += rows * std::max<std::int64_t>(0, layers.end - std::max(layers.begin, first));
    }
  }
  return result;
}

/// How much of its time each stage has waited for others, for weights, and for a cut to end.
void all_report_idle(Job& job, std::string_view phase, const Grid& grid, double seconds, double waited) {
  const std::vector<std::string> shares = job.world.all_gather(fmt::format("{}", waited / std::max(seconds, 1e-9)));
  std::string text;
  for (int stage = 0; stage < grid.pp; ++stage) {
    double sum = 0;
    for (int rank = 0; rank < job.world.size(); ++rank) {
      if (rank / grid.ep % grid.pp == stage) sum += std::stod(shares[static_cast<std::size_t>(rank)]);
    }
    text += fmt::format("{}{:.1f} %", stage == 0 ? "" : ", ", 100 * sum / (grid.ep * grid.dp));
  }
  job.log.info(fmt::format("{}: idle share by stage: {}", phase, text));
}

}  // namespace

void all_watch_pass(Job& job, const PassPlan& plan, std::string_view phase, double flops_per_token, PassEvents events,
                    const std::function<void(const PassEvents& events)>& all_run) {
  const Placement& placement = plan.placement;
  const Remaining remaining = remaining_of(plan);
  const auto begin_phase = [&] {
    job.progress.begin(phase, "tokens", remaining.all / plan.model.layers, remaining.own, flops_per_token);
  };
  std::int64_t layers_read = 0;
  events.layer_read = [&](std::int64_t bytes) {
    job.progress.advance(bytes);
    if (++layers_read < placement.layers.size()) return;
    job.progress.end();
    begin_phase();
  };
  events.layer_done = [&](const Block& block) { job.progress.advance(block.rows()); };
  events.block_done = [&](const Block&) { job.progress.advance(0, 1); };
  if (plan.holding.streamed) {
    begin_phase();
  } else {
    const std::int64_t weights = weight_bytes_per_rank(plan.model, placement.grid, job.options.compute);
    job.progress.begin("load", "bytes", weights * job.world.size(), weights);
  }
  const MemoryGrowth memory;
  const double waited = job.world.seconds_waited();
  const auto begin = std::chrono::steady_clock::now();
  all_run(events);
  job.progress.end();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  all_report_idle(job, phase, placement.grid, seconds, job.world.seconds_waited() - waited);
  std::int64_t peak = memory.peak_bytes();
  job.world.all_max(std::span(&peak, 1));
  job.log.info(fmt::format("{}: memory of the fullest rank grew by {}", phase, readable_bytes(peak)));
}

}  // namespace reap
