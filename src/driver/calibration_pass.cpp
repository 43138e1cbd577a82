#include "driver/calibration_pass.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "driver/resources.hpp"
#include "driver/state_saver.hpp"
#include "shard/observation.hpp"
#include "shard/schedule.hpp"

namespace reap {
namespace {

/// Rows times layers that are still to be done: by all ranks, and by one.
struct Remaining {
  std::int64_t all = 0, own = 0;
};
Remaining remaining_of(const PassPlan& plan) {
  const std::vector<std::int64_t>& saved = plan.start.snapshot.next_layer;
  const std::vector<std::int64_t> next = saved.empty() ? std::vector<std::int64_t>(plan.blocks.size()) : saved;
  const Schedule schedule(plan.blocks, 1, next, plan.model.layers, plan.placement.columns(), 0);
  Remaining result;
  for (std::int64_t step = 0; step < schedule.steps(); ++step) {
    for (int column = 0; column < plan.placement.columns(); ++column) {
      const std::int64_t block = schedule.block(step, column);
      if (block == Schedule::kNone) continue;
      const std::int64_t rows = plan.blocks[static_cast<std::size_t>(block)].rows();
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
void all_report_idle(Job& job, const Grid& grid, double seconds, double waited) {
  const std::vector<std::string> shares = job.world.all_gather(fmt::format("{}", waited / std::max(seconds, 1e-9)));
  std::string text;
  for (int stage = 0; stage < grid.pp; ++stage) {
    double sum = 0;
    for (int rank = 0; rank < job.world.size(); ++rank) {
      if (rank / grid.ep % grid.pp == stage) sum += std::stod(shares[static_cast<std::size_t>(rank)]);
    }
    text += fmt::format("{}{:.1f} %", stage == 0 ? "" : ", ", 100 * sum / (grid.ep * grid.dp));
  }
  job.log.info(fmt::format("observe: idle share by stage: {}", text));
}

}  // namespace

Saliency all_calibration_pass(Job& job, PassPlan& plan, const SaliencyInfo& info, double flops_per_token,
                              Backend& backend) {
  const Options& o = job.options;
  const Placement& placement = plan.placement;
  std::optional<StateSaver> saver;
  PassEvents events;
  if (!o.state.empty()) {
    saver.emplace(job, StateFolder(o.state, info, plan.blocks, plan.model.hidden, plan.model.layers));
    plan.start = saver->all_load();
    events.wishes = saver->wishes();
    events.all_save = [&](const Snapshot& snapshot, const std::vector<HeldBlock>& own) {
      saver->all_save(snapshot, own);
    };
  }
  const Remaining remaining = remaining_of(plan);
  const auto begin_observe = [&] {
    job.progress.begin("observe", "tokens", remaining.all / plan.model.layers, remaining.own, flops_per_token);
  };
  std::int64_t layers_read = 0;
  events.layer_read = [&](std::int64_t bytes) {
    job.progress.advance(bytes);
    if (++layers_read < placement.layers.size()) return;
    job.progress.end();
    begin_observe();
  };
  events.layer_done = [&](const Block& block) { job.progress.advance(block.rows()); };
  events.block_done = [&](const Block&) { job.progress.advance(0, 1); };
  if (plan.holding.streamed) {
    begin_observe();
  } else {
    const std::int64_t weights = weight_bytes_per_rank(plan.model, placement.grid, o.compute);
    job.progress.begin("load", "bytes", weights * job.world.size(), weights);
  }
  const MemoryGrowth memory;
  const double waited = job.world.seconds_waited();
  const auto begin = std::chrono::steady_clock::now();
  Saliency saliency = all_observe(job.world, job.pulse, plan, backend, events);
  job.progress.end();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  all_report_idle(job, placement.grid, seconds, job.world.seconds_waited() - waited);
  std::int64_t peak = memory.peak_bytes();
  job.world.all_max(std::span(&peak, 1));
  job.log.info(fmt::format("observe: memory of the fullest rank grew by {}", readable_bytes(peak)));
  return saliency;
}

}  // namespace reap
