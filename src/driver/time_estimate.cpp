#include "driver/time_estimate.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "shard/schedule.hpp"

namespace reap {
namespace {

double number(std::int64_t value) { return static_cast<double>(value); }

int ranks_of(const Grid& grid) { return grid.pp * grid.ep * grid.dp; }

/// What one rank gets of something that `ranks` use at once.
double share(double one, double all, int ranks) { return std::min(one, all / ranks); }

/// Reading `bytes` of weights on each of `ranks` ranks and laying them out.
double load_seconds(double bytes, int ranks, const Machine& machine) {
  return bytes / std::min(share(machine.read, machine.read_total, ranks), machine.layout);
}

/// One block of `rows` rows through one layer, on each rank of an expert group at once.
struct LayerTime {
  double compute, exchange;
};

LayerTime layer_time(const Model& model, const Grid& grid, const Workload& work, double rows, const Machine& machine) {
  LayerTime time{};
  // Never faster than the weights come out of the memory.
  time.compute = std::max(rows * layer_flops_per_token(model, work.mean_context) / machine.flops(work.compute),
                          number(layer_bytes(model, grid, work)) / machine.memory_rate);
  if (grid.ep > 1) {
    const double others = 1 - 1.0 / grid.ep;
    const double top_k = number(model.router.top_k);
    const double row_bytes = number(model.hidden) * (work.compute == Compute::fp32 ? 4 : 2);
    // A row goes once to each other shard that has any of its experts; each slot's output comes back.
    const double out = (grid.ep - 1) * (1 - std::pow(others, top_k)) * row_bytes + top_k * others * 8;
    const double back = top_k * others * (row_bytes + 8);
    time.exchange = rows * (out + back) / machine.link + 3 * (grid.ep - 1) * machine.latency;  // counts, rows, outputs
  }
  return time;
}

}  // namespace

std::int64_t waves_of(const Workload& work, const Grid& grid, const Holding& holding) {
  if (!holding.streamed) return 1;
  const std::vector<std::int64_t> not_begun(work.blocks.size() * static_cast<std::size_t>(work.variants()));
  const Schedule schedule(work.blocks, work.variants(), not_begun, 1, grid.ep * grid.dp, holding.wave_rows);
  return static_cast<std::int64_t>(schedule.waves().size());
}

PassTime pass_time(const Model& model, const Grid& grid, const Workload& work, const Holding& holding,
                   const Machine& machine) {
  const int ranks = ranks_of(grid);
  const double layers = number(most_layers(model, grid));
  const double blocks = number(static_cast<std::int64_t>(work.blocks.size()));
  const double rows = number(work.tokens()) / blocks;
  const double steps = std::ceil(blocks / (grid.ep * grid.dp)) * number(work.variants());
  const LayerTime block = layer_time(model, grid, work, rows, machine);
  const double hand_over = grid.pp == 1 ? 0 : rows * 4 * number(model.hidden) / machine.link + machine.latency;
  const double exchange = std::max(layers * block.exchange, hand_over - layers * block.compute);

  PassTime time;
  time.compute = steps * layers * block.compute;
  if (work.evaluated > 0) time.compute += steps * rows * head_flops_per_token(model) / machine.flops(work.compute);
  time.exchange = steps * exchange;
  if (!holding.streamed) {
    time.load = load_seconds(number(footprint_of(model, grid, work, holding).weights), ranks, machine);
    time.filling = (grid.pp - 1) * (layers * block.compute + exchange);
    return time;
  }
  // Each layer of each wave is read while the layer before computes, as far as the window holds both.
  const double waves = number(waves_of(work, grid, holding));
  const double layer = number(layer_bytes(model, grid, work));
  const double read = load_seconds(layer, ranks, machine);
  const double ahead = std::clamp(number(holding.weight_window) / layer - 1, 0.0, 1.0);
  const double busy = (time.compute + time.exchange) / (waves * layers);
  const double exposed = read - std::min(ahead * read, busy);
  const double spilled = work.scratch ? rows * steps * 4 * number(model.hidden) : 0;  // of one layer, out and in again
  time.load = read;
  time.reading = (waves * layers - 1) * exposed + layers * spilled * (1 / machine.read + 1 / machine.write);
  // A stage hands blocks on while its last layer of a wave computes.
  time.filling = (grid.pp - 1) * ((layers - 1) * (busy + exposed) + block.compute + exchange / layers);
  return time;
}

double output_time(double bytes, int ranks, bool verify, const Machine& machine) {
  const double read = std::min(machine.read * ranks, machine.read_total);
  const double write = std::min(machine.write * ranks, machine.write_total);
  return bytes / std::min(read, write) + (verify ? 2 * bytes / read : 0);
}

}  // namespace reap
