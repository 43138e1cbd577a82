#include "shard/cut.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace reap {
namespace {

// Rank 0 looks at what it has heard from all ranks so often: enough for a cut within a blink, and no work in between.
constexpr std::chrono::milliseconds kLookInterval{2};

// Words to rank 0: the cut that is answered, operations begun, whether to stop, whether all is done.
enum Said { kAnswered, kBegun, kWantsStop, kFinished };
// Words from rank 0: which cut, an Order, the operations to be begun, whether to stop.
enum Told { kCut, kOrder, kTarget, kStops };

}  // namespace

Cut::Cut(Pulse& pulse, const Grid& grid, int rank, Wishes wishes)
    : pulse_{pulse}, grid_{grid}, rank_{rank}, ranks_{grid.pp * grid.ep * grid.dp}, wishes_{std::move(wishes)} {}

void Cut::poll() {
  const bool stop = wishes_.stop && wishes_.stop();
  // Changed words leave at once, so the number is said only when it is asked for.
  pulse_.say({holding_ ? cuts_ + 1 : cuts_, holding_ ? begun_ : 0, stop ? 1 : 0, finished_ ? 1 : 0});
  pulse_.beat();
  if (rank_ == 0) conduct();
  obey();
}

/// What rank 0 orders follows from what it has heard.
void Cut::conduct() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_look_) return;
  next_look_ = now + kLookInterval;
  const auto all = [&](auto&& says) {
    for (int rank = 0; rank < ranks_; ++rank) {
      if (!says(pulse_.heard(rank))) return false;
    }
    return true;
  };
  const auto order_all = [&](Order order) {
    for (int rank = 0; rank < ranks_; ++rank) {
      pulse_.order(rank, {cuts_ + 1, static_cast<std::int64_t>(order), 0, 0});
    }
  };
  if (stage_ == Stage::idle) {
    if (all([](const Pulse::Words& words) { return words[kFinished] != 0; })) {
      order_all(Order::end);
      stage_ = Stage::ended;
      return;
    }
    stop_wanted_ = !all([](const Pulse::Words& words) { return words[kWantsStop] == 0; });
    if (!stop_wanted_ && !(wishes_.save && wishes_.save())) return;
    order_all(Order::hold);
    stage_ = Stage::collecting;
  } else if (stage_ == Stage::collecting) {
    if (!all([&](const Pulse::Words& words) { return words[kAnswered] == cuts_ + 1; })) return;
    for (int first = 0; first < ranks_; first += grid_.ep) {  // expert groups are neighbours in rank order
      std::int64_t target = 0;
      for (int rank = first; rank < first + grid_.ep; ++rank) target = std::max(target, pulse_.heard(rank)[kBegun]);
      for (int rank = first; rank < first + grid_.ep; ++rank) {
        pulse_.order(rank, {cuts_ + 1, static_cast<std::int64_t>(Order::go), target, stop_wanted_ ? 1 : 0});
      }
    }
    stage_ = Stage::told;
  }
}

void Cut::obey() {
  const Pulse::Words& words = pulse_.ordered();
  if (words[kCut] != cuts_ + 1) return;  // of a cut behind us
  const auto order = static_cast<Order>(words[kOrder]);
  if (order == Order::hold && !holding_) {
    holding_ = true;
    target_ = begun_;  // until told otherwise
  } else if (order == Order::go && !told_) {
    REAP_CHECK(holding_ && words[kTarget] >= begun_, "told to stop at operation {}, {} are begun", words[kTarget],
               begun_);
    told_ = true;
    target_ = words[kTarget];
    stops_ = words[kStops] != 0;
  } else if (order == Order::end) {
    over_ = true;
  }
}

void Cut::go_on() {
  REAP_CHECK(reached(), "no cut is reached");
  ++cuts_;
  holding_ = told_ = stops_ = false;
  if (rank_ == 0) stage_ = Stage::idle;
}

}  // namespace reap
