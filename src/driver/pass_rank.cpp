#include "driver/pass_rank.hpp"

#include <fmt/format.h>

#include "driver/atomic_file.hpp"
#include "driver/resources.hpp"
#include "driver/transport.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

/// One build on one kind of device: ranks that would compute other bits are refused.
void all_agree_on_numerics(const Comm& world, const std::string& numerics_id) {
  const std::vector<std::string> all = world.all_gather(numerics_id);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw SharedError(
        ExitCode::bad_input,
        fmt::format("rank {} computes with '{}', rank 0 with '{}': their bits differ; use equal nodes or pin "
                    "the older instructions with --cpu-isa",
                    rank, all[rank], all[0]));
  }
}

/// All of PassRank that can be known without computing anything.
PassRank all_place(Job& job, const Model& model, const Samples& samples, std::int64_t evaluated, bool compared) {
  const Options& o = job.options;
  Resources resources = all_find_resources(job.world, job.log);
  PassRank rank;
  rank.device = all_choose_device(job.world, o.device, job.log);
  if (rank.device.gpu >= 0) resources.memory_bytes = rank.device.memory_bytes;
  rank.threads = o.threads > 0 ? o.threads : resources.threads;
  rank.setup = all_set_up(job.world, o, samples, resources);
  rank.setup.work.evaluated = evaluated;
  rank.setup.work.compared = compared;
  job.world.all_try([&] {
    const bool moments = o.collected.moments || (o.imatrix_after_prune && o.w4a16.method == W4Method::gptq);
    if (rank.device.gpu >= 0 && moments) {
      fail(ExitCode::usage, "--collect moments: GPUs do not sum moments of inputs; give --device cpu as well");
    }
    const Candidate chosen = choose_candidate(rank.setup.task(model, job.world.size(), o));
    rank.holding = chosen.holding;
    rank.placement = place(model, chosen.grid, job.world.rank());
  });
  return rank;
}

}  // namespace

PassRank all_join_pass(Job& job, const Model& model, const Samples& samples, std::int64_t evaluated, bool compared) {
  const Options& o = job.options;
  PassRank rank = all_place(job, model, samples, evaluated, compared);
  job.world.all_try([&] { rank.backend = make_backend(rank.device, o.compute, rank.threads, o.cpu_isa); });
  all_agree_on_numerics(job.world, rank.backend->numerics_id());
  rank.connect = all_choose_transport(job.world, o.transport, rank.device, *rank.backend, job.log);
  return rank;
}

void all_check_pass(Job& job, const Model& model, const Samples& samples, std::int64_t evaluated, bool compared) {
  all_place(job, model, samples, evaluated, compared);
}

PassPlan PassRank::plan(const Source& source, const Samples& samples, const Options& options) const {
  return {.checkpoint = source.checkpoint,
          .model = source.model,
          .placement = placement,
          .samples = samples,
          .blocks = setup.work.blocks,
          .holding = holding,
          .scratch = options.scratch,
          .make_backend = [device = device, compute = options.compute,
                           isa = options.cpu_isa] { return reap::make_backend(device, compute, 1, isa); },
          .connect = connect,
          .collected = setup.work.collected};
}

std::string PassRank::describe() const {
  const Grid& grid = placement.grid;
  return fmt::format("grid pp {} x ep {} x dp {}, weights {}, {} threads per rank, {} transport, {}", grid.pp, grid.ep,
                     grid.dp, holding.streamed ? "streamed" : "resident", threads, connect ? "NCCL" : "MPI",
                     backend->numerics_id());
}

void check_writable(const std::filesystem::path& file) {
  const std::filesystem::path trial = file.string() + ".reap-trial";
  write_file_atomically(trial, "");
  std::filesystem::remove(trial);
}

}  // namespace reap
