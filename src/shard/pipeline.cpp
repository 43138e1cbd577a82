#include "shard/pipeline.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/check.hpp"
#include "shard/block.hpp"
#include "shard/hidden_states.hpp"
#include "shard/input_block.hpp"
#include "shard/layer_store.hpp"
#include "shard/link_mpi.hpp"
#include "shard/operations.hpp"
#include "shard/schedule.hpp"

namespace reap {
namespace {

constexpr std::int64_t kNone = Schedule::kNone;

std::int64_t longest_of(const std::vector<Block>& blocks) {
  std::int64_t rows = 0;
  for (const Block& block : blocks) rows = std::max(rows, block.rows());
  return rows;
}

std::vector<std::int64_t> beginnings(const PassPlan& plan) {
  const std::size_t blocks = plan.blocks.size() * plan.variants.size();
  if (plan.start.snapshot.next_layer.empty()) return std::vector<std::int64_t>(blocks);
  REAP_CHECK(plan.start.snapshot.next_layer.size() == blocks, "a state of {} blocks, the pass has {}",
             plan.start.snapshot.next_layer.size(), blocks);
  return plan.start.snapshot.next_layer;
}

/// The blocks of this rank's column that pass from the stage before `layer` to the stage that begins with it, in order.
std::vector<std::int64_t> passing(const Schedule& schedule, int column, std::int64_t layer) {
  std::vector<std::int64_t> blocks;
  for (std::int64_t step = 0; step < schedule.steps(); ++step) {
    const std::int64_t block = schedule.block(step, column);
    if (block != kNone && schedule.first_layer(block) < layer) blocks.push_back(block);
  }
  return blocks;
}

/// One rank's part of a pass. A block, here as in the schedule, is one of one variant. `x_` is the working place of one
/// block; between its layers a block stays there when it is alone in its wave, and in hidden_ otherwise.
class Pass {
 public:
  Pass(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend, PassSink& sink,
       const PassEvents& events)
      : world_{world},
        plan_{plan},
        layers_{plan.placement.layers},
        backend_{backend},
        sink_{sink},
        events_{events},
        variants_{static_cast<std::int64_t>(plan.variants.size())},
        cut_{pulse, plan.placement.grid, world.rank(), events.wishes},
        schedule_{plan.blocks,
                  variants_,
                  beginnings(plan),
                  plan.model.layers,
                  plan.placement.columns(),
                  plan.holding.streamed ? plan.holding.wave_rows : 0},
        group_columns_{plan.placement.replica * plan.placement.grid.ep,
                       (plan.placement.replica + 1) * plan.placement.grid.ep},
        coming_{passing(schedule_, plan.placement.column(), layers_.begin)},
        leaving_{passing(schedule_, plan.placement.column(), layers_.end)},
        next_layer_{beginnings(plan)},
        max_rows_{longest_of(plan.blocks)},
        link_{plan.connect
                  ? make_device_link(world, plan.placement, backend, plan.model.hidden, rows_of(coming_), plan.connect)
                  : make_mpi_link(world, plan.placement, backend, plan.model.hidden, rows_of(coming_))},
        input_{plan.checkpoint, plan.model, plan.samples, backend, max_rows_},
        masks_{plan.variants, layers_, plan.model.router.experts, backend},
        forward_{plan.model, plan.placement, backend, *link_, max_rows_},
        rows_{backend, max_rows_},
        x_{backend.memory(), max_rows_ * plan.model.hidden} {
    if (plan.holding.streamed) {
      hidden_ = std::make_unique<HiddenStates>(backend, longest_wave(), plan.model.hidden, plan.scratch);
    }
  }

  /// Before any memory of the backend goes: freeing it waits for transfers, for ever when an error has left them open.
  ~Pass() { link_.reset(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  Snapshot all_run() {
    all_or_drop([&] { all_prepare_weights(); });
    for (const Schedule::Wave& wave : schedule_.waves()) run_wave(wave);
    wait_for([&] { return link_->flushed(); }, "wait until the next stage has the last block");
    cut_.finish();
    wait_for([&] { return cut_.over(); }, "wait for the other ranks to finish");
    Snapshot end;
    sink_.all_sum(end);
    world_.all_barrier();  // the words that say so reach others only while this rank still waits for somebody
    return end;
  }

  /// While this rank waits for whatever it is.
  void poll() {
    cut_.poll();
    if (!standing_) link_->progress();  // the next stage may want what this one has long computed
    hand_on();
  }

 private:
  const Block& block_at(std::int64_t block) const { return plan_.blocks[static_cast<std::size_t>(block / variants_)]; }
  std::int64_t& next_layer(std::int64_t block) { return next_layer_[static_cast<std::size_t>(block)]; }
  std::int64_t own_block(std::int64_t step) const { return schedule_.block(step, plan_.placement.column()); }

  std::vector<std::int64_t> rows_of(const std::vector<std::int64_t>& blocks) const {
    std::vector<std::int64_t> rows(blocks.size());
    std::transform(blocks.begin(), blocks.end(), rows.begin(), [&](std::int64_t b) { return block_at(b).rows(); });
    return rows;
  }

  /// Rows of this column's blocks in a wave, one entry a step.
  std::vector<std::int64_t> rows_of(const Schedule::Wave& wave) const {
    std::vector<std::int64_t> rows;
    for (std::int64_t step = wave.first; step < wave.last; ++step) {
      rows.push_back(own_block(step) == kNone ? 0 : block_at(own_block(step)).rows());
    }
    return rows;
  }

  std::int64_t longest_wave() const {
    std::int64_t longest = 0;
    for (const Schedule::Wave& wave : schedule_.waves()) {
      const std::vector<std::int64_t> rows = rows_of(wave);
      longest = std::max(longest, std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
    }
    return longest;
  }

  /// What all ranks do together while no stage sends or receives. When it fails on all of them, nothing stays on its
  /// way: the job ends in good order.
  void all_or_drop(const std::function<void()>& work) {
    try {
      work();
    } catch (const SharedError&) {
      standing_ = true;
      link_->all_drop();
      throw;
    }
  }

  void all_prepare_weights() {
    const Placement& place = plan_.placement;
    if (plan_.holding.streamed) {
      std::vector<std::int64_t> order;
      for (const Schedule::Wave& wave : schedule_.waves()) {
        for (std::int64_t layer = layers_.begin; layer < layers_.end; ++layer) {
          if (schedule_.runs(wave, layer, group_columns_)) order.push_back(layer);
        }
      }
      weights_ = stream_layers(plan_.checkpoint, plan_.model, place.experts, std::move(order),
                               plan_.holding.weight_window, plan_.make_backend());
      return;
    }
    world_.all_try([&] {
      if (place.stage == 0) input_.hold_table();
    });
    weights_ = all_load_layers(world_, plan_.checkpoint, plan_.model, place, backend_, [&](std::int64_t bytes) {
      if (events_.layer_read) events_.layer_read(bytes);
      if (!events_.wishes.stop || !events_.wishes.stop()) return;
      fail(ExitCode::stopped, "stopped on request before the pass began; run the same command again to go on");
    });
  }

  void run_wave(const Schedule::Wave& wave) {
    if (hidden_) hidden_->begin(rows_of(wave));
    wave_ = wave;
    for (std::int64_t layer = layers_.begin; layer < layers_.end; ++layer) {
      if (!schedule_.runs(wave, layer, group_columns_)) continue;
      wait_for([&] { return weights_->ready(layer); }, "wait for weights");
      const LayerWeights& weights = weights_->at(layer);
      for (std::int64_t step = wave.first; step < wave.last; ++step) {
        if (schedule_.runs(step, layer, group_columns_)) all_operation(weights, layer, step);
      }
      weights_->release(layer);
    }
  }

  /// The blocks of one step of this expert group through one layer.
  void all_operation(const LayerWeights& weights, std::int64_t layer, std::int64_t step) {
    const std::int64_t own = own_block(step);
    const std::int64_t block = own != kNone && schedule_.first_layer(own) <= layer ? own : kNone;
    const bool comes = block != kNone && layer == layers_.begin && schedule_.first_layer(block) < layer;
    wait_for([&] { return !comes || link_->arrived(); }, "wait for the stage before");
    // When one rank of a group has begun, the others have all that they need to follow it, be it to a cut. One that has
    // no block in this operation, or took it from a state, would be far ahead of the others otherwise.
    if (plan_.placement.grid.pp > 1) {
      link_->call_group();
      wait_for([&] { return link_->group_called(); }, "wait for the other expert shards");
    }
    cut_.begin();
    operations::note("forward", layer, block == kNone ? -1 : block_at(block).index);
    if (block == kNone) {
      rows_.clear();
    } else {
      rows_.set(plan_.samples, block_at(block));
      take_input(layer, step, block, comes);
    }
    const float* gate_bias = masks_.gate_bias(block == kNone ? 0 : block % variants_, layer, weights);
    const LayerTrace trace = forward_.all_layer(weights, gate_bias, rows_, x_.data(), sink_.inputs(layer));
    if (block == kNone) return;
    sink_.layer(layer, rows_, trace);
    next_layer(block) = layer + 1;
    if (events_.layer_done) events_.layer_done(block_at(block));
    put_output(step, block);
  }

  void take_input(std::int64_t layer, std::int64_t step, std::int64_t block, bool comes) {
    const std::int64_t rows = block_at(block).rows();
    if (comes) {
      link_->receive(x_.data(), rows);
    } else if (layer == schedule_.first_layer(block)) {
      if (layer == 0) {
        input_.embed(block_at(block), x_.data());
      } else {
        const Buffer<float> host(host_memory, rows * plan_.model.hidden);
        plan_.start.read_hidden(block, host.data());
        backend_.upload(x_.data(), host.data(), static_cast<std::size_t>(host.bytes()));
        backend_.synchronize();
      }
    } else if (hidden_) {
      hidden_->load(static_cast<std::size_t>(step - wave_.first), x_.data());
    }
  }

  void put_output(std::int64_t step, std::int64_t block) {
    if (next_layer(block) < layers_.end) {
      if (hidden_) {
        hidden_->store(static_cast<std::size_t>(step - wave_.first), x_.data());
      } else {
        in_x_ = block;
      }
      return;
    }
    in_x_ = kNone;
    if (layers_.end == plan_.model.layers) {
      sink_.last(block_at(block), block % variants_, rows_, x_.data());
      if (events_.block_done) events_.block_done(block_at(block));
      return;
    }
    in_x_ = block;
    leaves_ = true;
    hand_on();
    wait_for([&] { return !leaves_; }, "wait for the next stage");
  }

  /// Hands the block in x_ on if it is to leave and the link takes it.
  void hand_on() {
    if (!leaves_ || standing_ || !link_->clear()) return;
    link_->send(x_.data(), block_at(in_x_).rows());
    in_x_ = kNone;
    leaves_ = false;
  }

  /// Waits between operations, where a cut may come, for `ready` and until the next one may begin.
  void wait_for(const std::function<bool()>& ready, const char* what) {
    const auto may_go_on = [&] { return cut_.open() && ready(); };
    for (cut_.poll(); cut_.reached() || !may_go_on();) {
      if (cut_.reached()) all_save();
      world_.wait_until([&] { return cut_.reached() || may_go_on(); }, what);  // which polls
    }
  }

  void all_save() {
    world_.all_barrier();  // blocks leave until all are at the cut: ranks on their way there may make room for them
    standing_ = true;
    operations::note("save the state");
    Snapshot snapshot;
    sink_.all_sum(snapshot);
    snapshot.next_layer = next_layer_;
    world_.all_max(std::span(snapshot.next_layer));
    const std::vector<HeldBlock> own = all_held();
    if (events_.all_save) all_or_drop([&] { events_.all_save(snapshot, own); });
    const bool stops = cut_.stops();
    cut_.go_on();
    standing_ = stops;
    if (stops) {
      link_->all_drop();
      throw SharedError(ExitCode::stopped,
                        "stopped on request, the state is saved; run the same command again to go on");
    }
  }

  /// The blocks inside the model whose hidden states this rank has.
  std::vector<HeldBlock> all_held() {
    std::vector<HeldBlock> held;
    const auto hold = [&](std::int64_t block, std::function<void(float*)> read) {
      held.push_back({block, block_at(block).rows(), std::move(read)});
    };
    if (in_x_ != kNone) {
      hold(in_x_, [this, rows = block_at(in_x_).rows()](float* to) {
        backend_.download(to, x_.data(), static_cast<std::size_t>(rows * plan_.model.hidden) * sizeof(float));
        backend_.synchronize();
      });
    }
    for (std::int64_t step = wave_.first; hidden_ && step < wave_.last; ++step) {
      const std::int64_t block = own_block(step);
      if (block == kNone || !begun_here(block) || next_layer(block) == layers_.end) continue;
      hold(block, [this, i = static_cast<std::size_t>(step - wave_.first)](float* to) { hidden_->read(i, to); });
    }
    for (const Link::Travelling& t : link_->all_travelling()) {
      const std::int64_t block = (t.incoming ? coming_ : leaving_)[static_cast<std::size_t>(t.number)];
      const std::int64_t floats = block_at(block).rows() * plan_.model.hidden;
      hold(block, [x = t.x, floats](float* to) {
        std::copy_n(x, floats * static_cast<std::int64_t>(sizeof(float)), reinterpret_cast<std::byte*>(to));
      });
    }
    for (std::int64_t step = 0; step < schedule_.steps();
         ++step) {  // what an earlier state holds, and was not taken yet
      const std::int64_t block = own_block(step);
      if (block == kNone) continue;
      const std::int64_t first = schedule_.first_layer(block);
      if (first == 0 || !layers_.holds(first) || next_layer(block) != first) continue;
      hold(block, [this, block](float* to) { plan_.start.read_hidden(block, to); });
    }
    return held;
  }

  /// Whether the block has been through a layer of this rank.
  bool begun_here(std::int64_t block) const {
    const std::int64_t next = next_layer_[static_cast<std::size_t>(block)];
    return next > std::max(layers_.begin, schedule_.first_layer(block));
  }

  const Comm& world_;
  const PassPlan& plan_;
  Range layers_;
  Backend& backend_;
  PassSink& sink_;
  const PassEvents& events_;
  std::int64_t variants_;
  Cut cut_;
  Schedule schedule_;
  Range group_columns_;                         // columns of this rank's expert group
  std::vector<std::int64_t> coming_, leaving_;  // blocks from the stage before and to the next one, in order
  std::vector<std::int64_t> next_layer_;        // [blocks, variants] as far as this rank knows
  std::int64_t max_rows_;
  std::unique_ptr<Link> link_;
  InputBlock input_;
  ExpertMasks masks_;
  BlockForward forward_;
  BlockRows rows_;
  Buffer<float> x_;
  std::int64_t in_x_ = kNone;             // the block that only x_ holds
  bool leaves_ = false;                   // which is to go to the next stage
  bool standing_ = false;                 // all ranks stand still: transfers are the link's own affair
  std::unique_ptr<HiddenStates> hidden_;  // streamed
  std::unique_ptr<LayerStore> weights_;
  Schedule::Wave wave_;
};

/// While it exists, waiting for others does `work` besides.
class WhileWaiting {
 public:
  WhileWaiting(const Comm& world, std::function<void()> work)
      : world_{world}, before_{world.on_wait(std::move(work))} {}
  ~WhileWaiting() { world_.on_wait(std::move(before_)); }
  WhileWaiting(const WhileWaiting&) = delete;
  WhileWaiting& operator=(const WhileWaiting&) = delete;

 private:
  const Comm& world_;
  std::function<void()> before_;
};

}  // namespace

InputSums PassSink::inputs(std::int64_t) { return {}; }
void PassSink::layer(std::int64_t, const BlockRows&, const LayerTrace&) {}
void PassSink::last(const Block&, std::int64_t, const BlockRows&, const float*) {}
void PassSink::all_sum(Snapshot&) {}

Snapshot all_pass(const Comm& world, Pulse& pulse, const PassPlan& plan, Backend& backend, PassSink& sink,
                  const PassEvents& events) {
  REAP_CHECK(!plan.blocks.empty() && !plan.variants.empty(), "a pass over no blocks");
  Pass pass(world, pulse, plan, backend, sink, events);
  const WhileWaiting polling(world, [&] { pass.poll(); });
  return pass.all_run();
}

}  // namespace reap
