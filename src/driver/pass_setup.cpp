#include "driver/pass_setup.hpp"

#include <array>

#include "driver/calibration_parts.hpp"

namespace reap {

PassSetup all_set_up(const Comm& world, const Options& options, const Samples& samples, const Resources& resources) {
  const std::int64_t threads = options.threads > 0 ? options.threads : resources.threads;
  // The least of all ranks, as the largest of the negatives.
  std::array<std::int64_t, 2> least{-threads, -resources.memory_bytes};
  world.all_max(least);
  PassSetup setup;
  world.all_try([&] {
    setup.work = workload_of(samples, options.block_tokens);
    setup.work.blocks = blocks_of_part(setup.work.blocks, options.part);
    setup.work.compute = options.compute;
    setup.work.isa = settle_isa(options.cpu_isa);
    setup.work.threads = static_cast<int>(-least[0]);
    setup.work.collected = options.collected;
    setup.work.scratch = !options.scratch.empty();
    setup.machine = describe_machine(options.machine, setup.work.threads, setup.work.isa);
  });
  // What the user says goes before what the ranks have.
  setup.memory_bytes = options.memory_budget > 0  ? options.memory_budget
                       : setup.machine.memory > 0 ? static_cast<std::int64_t>(setup.machine.memory)
                                                  : -least[1];
  return setup;
}

}  // namespace reap
