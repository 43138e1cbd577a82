#include "driver/run.hpp"

#include <fmt/format.h>

#include <optional>

#include "driver/calibration.hpp"
#include "driver/heldout.hpp"
#include "driver/observe.hpp"
#include "driver/run_log.hpp"
#include "driver/sweep.hpp"
#include "driver/write_output.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// What would fail after hours of computing fails now.
void all_check_outputs(Job& job, const Source& source, const std::vector<Variant>& all) {
  job.world.all_try([&] {
    const Options& o = job.options;
    const RouterSpec& router = source.model.router;
    for (const Variant& v : all) {
      if (!v.automatic()) kept_experts(v.request, router.experts, router.top_k);  // as of its candidates
    }
    if (job.world.rank() != 0) return;
    if (!o.calibration.empty()) {
      const Calibration calibration = open_calibration(o.calibration, source.model.vocab);
      check_domains(o.plan_request, calibration.domain_names);
    }
    for (const Variant& v : all) {
      const bool known = o.outputs != OutputChoice::none && !v.candidate && !v.automatic();
      if (known) check_output(source, v.request, o.output / v.name, o.write);
    }
    std::error_code error;
    fs::create_directories(o.output, error);
    if (error) fail(ExitCode::io, "{}: cannot be made: {}", o.output.string(), error.message());
  });
}

/// A saliency file of this model that is there already, of whatever samples.
SaliencyFile all_given_saliency(Job& job, const Source& source) {
  const fs::path& file = job.options.saliency;
  SaliencyFile given;
  job.world.all_try([&] {
    if (file.empty()) {
      fail(ExitCode::usage,
           "--calibration is missing: the tokenised samples (HDF5); or --saliency: a file that exists");
    }
    given = read_saliency(file);
    if (given.info.model_digest == source.digest) return;
    fail(ExitCode::bad_input, "{}: it is of another model (digest {}, this one {})", file.string(),
         given.info.model_digest, source.digest);
  });
  job.log.info(
      fmt::format("{}: {} samples, {} tokens, used as they are", file.string(), given.info.samples, given.info.tokens));
  return given;
}

SaliencyFile all_saliency(Job& job, const Source& source) {
  const Options& o = job.options;
  if (o.calibration.empty()) return all_given_saliency(job, source);
  return all_observe_job(job, source, o.saliency.empty() ? o.output / "saliency.h5" : o.saliency);
}

/// Rank 0 decides; every rank works from the same text.
Plan all_decide(const Comm& world, const SaliencyFile& saliency, const Variant& variant) {
  std::string text;
  world.all_try([&] {
    if (world.rank() == 0) text = plan_text(make_plan(saliency, variant.request));
  });
  text = world.all_broadcast(0, text);
  Plan plan;
  world.all_try([&] { plan = parse_plan(text, "plan " + variant.name); });
  return plan;
}

std::vector<PlannedVariant> all_plan(Job& job, const SaliencyFile& saliency, const std::vector<Variant>& all) {
  std::vector<PlannedVariant> planned;
  for (const Variant& variant : all) {
    PlannedVariant& p = planned.emplace_back(PlannedVariant{variant, {}, variant.name});
    p.write = !variant.candidate && job.options.outputs != OutputChoice::none;
    if (!variant.automatic()) p.plan = all_decide(job.world, saliency, variant);
  }
  return planned;
}

/// Leaves `<name>.plan.json` and, where it is wanted, `<name>/`, unless an earlier run has.
/// @param evaluation  for the model card; "" = none
void all_make(Job& job, const Source& source, const PlannedVariant& planned, const std::string& evaluation) {
  const Plan& plan = planned.plan;
  job.log.info(fmt::format("plan {}: {} of {} experts stay in each of {} layers", planned.variant.name, plan.kept,
                           plan.experts, plan.layers.size()));
  const fs::path output = job.options.output / planned.variant.name;
  const bool finished = planned.write && all_is_finished(job, source, plan, output);
  job.world.all_try([&] {
    if (job.world.rank() == 0) write_plan(output.string() + ".plan.json", plan);
  });
  if (planned.write && !finished) all_write_output(job, source, plan, output, evaluation);
}

}  // namespace

void run(Job& job) {
  const Options& o = job.options;
  std::vector<Variant> all;
  job.world.all_try([&] {
    all = variants_of(o);
    if (o.model.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    if (o.output.empty()) fail(ExitCode::usage, "--output is missing: the folder for the results");
  });
  const Source source = all_open_source(job.world, o.model);
  all_check_outputs(job, source, all);
  if (!o.heldout.empty()) static_cast<void>(all_open_heldout(job, source.model.vocab));  // reads every token
  const SaliencyFile saliency = all_saliency(job, source);
  std::vector<PlannedVariant> planned = all_plan(job, saliency, all);
  std::optional<Evaluation> evaluation;
  if (!o.heldout.empty()) {
    evaluation = all_sweep(job, source, planned);
    if (job.world.rank() == 0) fmt::print("{}", sweep_table(*evaluation));
  }
  for (const PlannedVariant& p : planned) {
    all_make(job, source, p, evaluation ? evaluation_markdown(*evaluation, measures_of(*evaluation, p)) : "");
  }
  all_write_run_log(job, o.output / "run_log.json");
}

void prune(Job& job) {
  const Options& o = job.options;
  Plan plan;
  job.world.all_try([&] {
    if (o.plan.empty()) fail(ExitCode::usage, "--plan is missing: the plan.json to carry out");
    if (o.output.empty()) fail(ExitCode::usage, "--output is missing: the folder for the pruned model");
    plan = read_plan(o.plan);
  });
  const Source source = all_open_source(job.world, o.model);
  job.world.all_try([&] {
    if (plan.model_digest == source.digest) return;
    fail(ExitCode::bad_input, "{}: the plan is for another model (digest {}, this one {})", o.plan.string(),
         plan.model_digest, source.digest);
  });
  if (all_is_finished(job, source, plan, o.output)) return;
  std::shared_ptr<const MeanOutputs> means;
  job.world.all_try([&] {
    if (o.write.form == Form::ordinary) return;
    means = std::make_shared<const MeanOutputs>(read_mean_outputs(
        o.saliency, {plan.model_digest, plan.calibration_digest, plan.compute, plan.block_tokens, plan.numerics_id}));
  });
  all_write_output(job, source, plan, o.output, "", std::move(means));
}

}  // namespace reap
