#include "driver/calibration_pass.hpp"

#include <optional>

#include "driver/state_saver.hpp"
#include "driver/watched_pass.hpp"
#include "shard/observation.hpp"

namespace reap {

Saliency all_calibration_pass(Job& job, PassPlan& plan, const SaliencyInfo& info, double flops_per_token,
                              Backend& backend) {
  const Options& o = job.options;
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
  Saliency saliency;
  all_watch_pass(job, plan, "observe", flops_per_token, events,
                 [&](const PassEvents& all) { saliency = all_observe(job.world, job.pulse, plan, backend, all); });
  return saliency;
}

}  // namespace reap
