#include "driver/state_saver.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "driver/stop_request.hpp"

namespace reap {
namespace {

// Saving takes at most this share of the time: hidden states of streamed passes can be larger than the model.
constexpr int kPauseForSave = 20;

std::string progress_of(const Snapshot& snapshot, std::int64_t layers) {
  const auto done = std::ranges::count(snapshot.next_layer, layers);
  const auto inside =
      static_cast<std::int64_t>(snapshot.next_layer.size()) - done - std::ranges::count(snapshot.next_layer, 0);
  return fmt::format("{} of {} blocks done, {} inside the model", done, snapshot.next_layer.size(), inside);
}

}  // namespace

StateSaver::StateSaver(Job& job, StateFolder folder) : job_{job}, folder_{std::move(folder)} {}

StartingPoint StateSaver::all_load() {
  std::string text;
  std::optional<StartingPoint> found = folder_.all_load(job_.world, text);
  if (!text.empty()) job_.log.warn(text);
  if (!found) return {};
  job_.log.info(fmt::format("observe: going on from {}: {}", job_.options.state.string(),
                            progress_of(found->snapshot, found->snapshot.saliency.layers)));
  return std::move(*found);
}

Cut::Wishes StateSaver::wishes() {
  return {[this] {
            const std::chrono::duration<double, std::ratio<60>> minutes(job_.options.checkpoint_minutes);
            const Clock::duration since = Clock::now() - saved_at_;
            return since >= minutes && since >= kPauseForSave * took_;
          },
          stop_requested};
}

void StateSaver::all_save(const Snapshot& snapshot, const std::vector<HeldBlock>& own) {
  const auto begin = Clock::now();
  folder_.all_commit(job_.world, snapshot, own);
  saved_at_ = Clock::now();
  took_ = saved_at_ - begin;
  job_.log.info(fmt::format("observe: state saved in {}: {}, in {:.1f} s", job_.options.state.string(),
                            progress_of(snapshot, snapshot.saliency.layers),
                            std::chrono::duration<double>(took_).count()));
}

}  // namespace reap
