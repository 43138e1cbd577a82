#include "driver/observe.hpp"

#include <fmt/format.h>

#include <optional>

#include "driver/calibration.hpp"
#include "driver/calibration_pass.hpp"
#include "driver/digest.hpp"
#include "driver/pass_rank.hpp"
#include "driver/saliency_parts.hpp"
#include "driver/state.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

Calibration all_open_calibration(Job& job, const Model& model) {
  Calibration calibration;
  job.world.all_try([&] {
    const auto& file = job.options.calibration;
    if (file.empty()) fail(ExitCode::usage, "--calibration is missing: the tokenised samples (HDF5)");
    calibration = open_calibration(file, model.vocab);
    if (job.world.rank() == 0) calibration.digest = calibration_digest(calibration);
  });
  calibration.digest = job.world.all_broadcast(0, calibration.digest);
  return calibration;
}

/// The sums of an earlier run of the same identity, or nothing. The file is read by rank 0 only, and once.
std::optional<SaliencyFile> all_reuse(Job& job, const SaliencyInfo& info, const std::filesystem::path& file) {
  std::int64_t found = 0;
  job.world.all_try([&] {
    if (job.world.rank() != 0) return;
    if (!std::filesystem::exists(file)) return check_writable(file);
    const std::string other = difference(read_saliency_for_plans(file).info, info);
    if (!other.empty() && job.options.write.overwrite) return;
    if (!other.empty()) {
      fail(ExitCode::bad_input, "{}: exists and was made with {}; name another file or give --overwrite", file.string(),
           other);
    }
    found = 1;
  });
  job.world.all_max(std::span(&found, 1));
  if (found == 0) return std::nullopt;
  job.log.info(fmt::format("observe: {} already holds this result; using it", file.string()));
  std::optional<SaliencyFile> result;
  job.world.all_try([&] { result = read_saliency_for_plans(file); });
  return result;
}

/// A pass that was killed between its result and the end of its state leaves that state. One of another pass is
/// refused.
void all_remove_leftover(Job& job, StateFolder& state) {
  std::string ignored;  // a damaged generation goes as well
  state.all_load(job.world, ignored);
  state.all_remove(job.world);
}

KeptExperts kept_by(const Plan& plan) {
  KeptExperts kept;
  for (const LayerPlan& layer : plan.layers) kept.push_back(layer.keep);
  return kept;
}

}  // namespace

SaliencyFile all_observe_job(Job& job, const Source& source, const std::filesystem::path& file, const Plan* routing) {
  const Options& o = job.options;
  const Model& model = source.model;
  Calibration calibration = all_open_calibration(job, model);
  const Samples& samples = calibration.samples;

  const PassRank rank = all_join_pass(job, model, samples, 0);
  const std::vector<Block>& blocks = rank.setup.work.blocks;

  SaliencyInfo info{model.type,
                    source.digest,
                    calibration.digest,
                    o.compute == Compute::fp32 ? "fp32" : "bf16",
                    rank.backend->numerics_id(),
                    o.block_tokens,
                    samples.samples(),
                    samples.tokens(),
                    model.router.top_k,
                    calibration.domain_names};
  set_parts(info, {part_of(calibration, blocks)});
  info.collected = o.collected;
  if (routing != nullptr) info.plan_digest = sha256_of(plan_text(*routing));
  StateFolder state(o.state, info, blocks, model.hidden, model.layers);
  if (auto earlier = all_reuse(job, info, file)) {
    if (!o.state.empty()) all_remove_leftover(job, state);
    return std::move(*earlier);
  }

  job.log.info(fmt::format("observe: {} samples, {} tokens, {} blocks; {}", info.samples, info.tokens, blocks.size(),
                           rank.describe()));
  PassPlan plan = rank.plan(source, samples, o);
  if (routing != nullptr) plan.variants = {kept_by(*routing)};
  const double flops_per_token =
      static_cast<double>(model.layers) * layer_flops_per_token(model, rank.setup.work.mean_context);
  SaliencyFile result{info, all_calibration_pass(job, plan, info, flops_per_token, *rank.backend)};
  job.world.all_try([&] {
    if (job.world.rank() == 0) write_saliency(file, result.info, result.saliency);
  });
  if (!o.state.empty()) state.all_remove(job.world);
  return result;
}

std::filesystem::path all_observe_survivors(Job& job, const Source& source, const Plan& plan, const std::string& name) {
  Options options = job.options;
  options.collected = {.imatrix = true, .moments = options.w4a16.method == W4Method::gptq};
  if (!options.state.empty()) options.state /= name;
  Job own{job.world, options, job.log, job.progress, job.pulse};
  const std::filesystem::path file = options.output / (name + ".saliency.h5");
  job.log.info(fmt::format("plan {}: the inputs of what it leaves, with the pruned model's routing", name));
  all_observe_job(own, source, file, &plan);
  if (job.world.rank() == 0 && !options.state.empty()) {
    std::error_code nothing;  // it need not be there
    std::filesystem::remove(options.state, nothing);
  }
  return file;
}

}  // namespace reap
