#include "driver/estimate.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "driver/calibration.hpp"
#include "driver/pass_setup.hpp"
#include "driver/plan.hpp"
#include "driver/probe.hpp"
#include "driver/quantize_size.hpp"
#include "driver/resources.hpp"
#include "driver/serving_limits.hpp"
#include "kernels/check.hpp"
#include "kernels/fields.hpp"
#include "shard/footprint.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const std::vector<double> kUsualRatios = {0.25, 0.3, 0.4, 0.5};

/// The calibration file's samples, or equal ones of as many tokens as asked for.
Samples samples_of(const Options& o, const Model& model, std::string& from) {
  if (!o.calibration.empty()) {
    from = o.calibration.string();
    return open_calibration(o.calibration, model.vocab).samples;
  }
  from = fmt::format("{} tokens in samples of {}, as --tokens and --longest say", o.tokens, o.longest);
  Samples samples;
  for (std::int64_t at = 0; at < o.tokens; at += o.longest) samples.offsets.push_back(at);
  samples.offsets.push_back(o.tokens);
  samples.domain.assign(samples.offsets.size() - 1, 0);
  return samples;
}

/// Where a folder that may not exist yet will be.
fs::path existing_parent(fs::path folder) {
  std::error_code error;
  for (folder = fs::absolute(folder, error); !fs::is_directory(folder, error) && folder.has_relative_path();) {
    folder = folder.parent_path();
  }
  return folder;
}

std::int64_t w4a16_bytes(const Options& o, const Model& model, std::int64_t kept) {
  const std::optional<std::int64_t> group = largest_group(model, o.w4a16.attention, o.write.serving);
  if (model.w4 || !group) return 0;
  QuantizeOptions options = o.w4a16;
  options.group = *group;
  return quantised_bytes(model, kept, options);
}

std::vector<OutputEstimate> outputs_of(const Options& o, const Estimate& e) {
  std::vector<OutputEstimate> outputs;
  const std::int64_t experts = e.folder.model.router.experts;
  for (const double ratio : o.plan_request.keep > 0 ? std::vector<double>{0}
                            : o.ratios.empty()      ? kUsualRatios
                                                    : o.ratios) {
    PlanRequest request = o.plan_request;
    request.ratio = ratio;
    OutputEstimate output;
    output.kept = kept_experts(request, experts, e.folder.model.router.top_k);
    output.left = e.folder.inventory.left(output.kept);
    if (o.write.mtp == Mtp::keep) output.left += e.folder.inventory.mtp;
    output.seconds = output_time(static_cast<double>(output.left.bytes), e.ranks, o.verify, e.machine);
    output.w4a16_bytes = w4a16_bytes(o, e.folder.model, output.kept);
    outputs.push_back(output);
  }
  return outputs;
}

/// Chooses, and says why.
void choose(const PlanningTask& task, Estimate& e) {
  e.candidates = candidates(task);
  const Candidate* chosen = chosen_of(e.candidates);
  if (chosen == nullptr) {
    e.why = why_nothing_fits(task, e.candidates);
    return;
  }
  e.chosen = static_cast<int>(chosen - e.candidates.data());
  const bool resident_asked = task.weights != WeightsMode::stream;
  e.why = !chosen->holding.streamed ? "the quickest grid that holds all of its weights"
          : resident_asked          ? "no grid holds all of its weights; the quickest one that streams them"
                                    : "the quickest grid that streams weights, as asked for";
  const bool quicker = !chosen->holding.streamed && &e.candidates.front() != chosen;
  if (quicker && e.candidates.front().holding.streamed) e.why += " (streaming is only chosen where nothing else fits)";
  if (chosen->holding.streamed && task.work.scratch) {
    e.scratch_bytes = task.work.tokens() * 4 * task.model.hidden;
  }
}

void all_measure(const Comm& world, const Options& o, const Estimate& e, Machine& machine) {
  std::unique_ptr<Backend> backend;
  world.all_try([&] { backend = make_cpu_backend(o.compute, e.work.threads, o.cpu_isa); });
  const fs::path folder = o.output.empty() ? fs::temp_directory_path() : existing_parent(o.output);
  all_probe(world, e.folder.model, *backend, e.work.threads, {o.model, folder}, machine);
}

}  // namespace

Estimate all_estimate(const Comm& world, const Options& o, Log& log) {
  Estimate e;
  Samples samples;
  world.all_try([&] {
    if (o.model.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    e.directory = o.model;
    e.folder = open_model_folder(o.model);
    samples = samples_of(o, e.folder.model, e.samples);
  });
  PassSetup setup = all_set_up(world, o, samples, all_find_resources(world, log));
  e.work = setup.work;
  e.ranks = o.ranks > 0 ? o.ranks : world.size();
  e.memory_bytes = setup.memory_bytes;
  if (o.probe) all_measure(world, o, e, setup.machine);
  e.machine = setup.machine;
  world.all_try([&] {
    choose(setup.task(e.folder.model, e.ranks, o), e);
    e.outputs = outputs_of(o, e);
    const Model& model = e.folder.model;
    e.saliency_bytes =
        model.layers * e.work.groups * model.router.experts * (8 * kSumsPerExpert + 4) + collected_bytes(model, e.work);
    if (!o.output.empty()) e.free_bytes = static_cast<std::int64_t>(fs::space(existing_parent(o.output)).available);
  });
  return e;
}

}  // namespace reap
