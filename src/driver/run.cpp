#include "driver/run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "driver/calibration.hpp"
#include "driver/heldout.hpp"
#include "driver/observe.hpp"
#include "driver/pass_rank.hpp"
#include "driver/quantize.hpp"
#include "driver/run_log.hpp"
#include "driver/sweep.hpp"
#include "driver/write_output.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// One of the models that each plan becomes.
struct OutputKind {
  std::string ending;  // of its folder's name, after the plan's
  Options options;
};

/// Whether weights are rounded by what was collected: rtn asks for nothing; gptq cannot do without, and says what it
/// lacks.
bool informs(const Options& options, const Collected& collected) {
  const W4Method method = options.w4a16.method;
  return method == W4Method::gptq || (method != W4Method::rtn && collected.imatrix);
}

/// With the source's weights, with weights of 4 bits, or both.
std::vector<OutputKind> output_kinds(const Options& options, const Model& model, Log& log) {
  std::vector<OutputKind> kinds;
  if (options.weight_bits != WeightBits::w4a16) kinds.push_back({"", options});
  if (options.weight_bits != WeightBits::source) {
    kinds.push_back({"-w4a16", with_w4a16(options, model, log)});
    const bool observed =
        options.imatrix_after_prune || informs(options, options.collected) || options.calibration.empty();
    kinds.back().options.write.importance_pending = observed && options.imatrix.empty();
  }
  return kinds;
}

void check_survivors_option(const Options& o) {
  if (o.calibration.empty()) fail(ExitCode::usage, "--imatrix-after-prune needs the samples: give --calibration");
  if (!o.imatrix.empty()) fail(ExitCode::usage, "--imatrix-after-prune and --imatrix: importance is taken from one");
  if (o.w4a16.method == W4Method::rtn) fail(ExitCode::usage, "--imatrix-after-prune: --method rtn weighs no errors");
}

/// What may be asked for by the plan of a variant: of an automatic one, whatever it may choose.
std::vector<PlanRequest> possible_requests(const std::vector<Variant>& all, const Variant& variant) {
  if (!variant.automatic()) return {variant.request};
  std::vector<PlanRequest> requests;
  for (const Variant& v : all) {
    if (!v.automatic() && v.as_small_as(variant)) requests.push_back(v.request);
  }
  return requests;
}

/// What would fail after hours of computing fails now.
void all_check_outputs(Job& job, const Source& source, const std::vector<Variant>& all,
                       const std::vector<OutputKind>& kinds) {
  job.world.all_try([&] {
    const Options& o = job.options;
    const RouterSpec& router = source.model.router;
    for (const Variant& v : all) {
      if (v.automatic()) continue;  // as of its candidates
      const std::int64_t kept = kept_experts(v.request, router.experts, router.top_k);
      for (const OutputKind& kind : kinds) {
        const WriteOptions& write = kind.options.write;
        if (write.quantize) check_serving(*write.quantize, source.model, kept, write.serving);
      }
    }
    if (job.world.rank() != 0) return;
    if (!o.calibration.empty()) {
      const Calibration calibration = open_calibration(o.calibration, source.model.vocab);
      check_domains(o.plan_request, calibration.domain_names);
    }
    for (const Variant& v : all) {
      if (o.outputs == OutputChoice::none || v.candidate) continue;
      for (const OutputKind& kind : kinds) {
        check_output(source, possible_requests(all, v), o.output / (v.name + kind.ending), kind.options.write);
      }
    }
    std::error_code error;
    fs::create_directories(o.output, error);
    if (error) fail(ExitCode::io, "{}: cannot be made: {}", o.output.string(), error.message());
  });
}

/// The pass over the held-out samples, which comes after that over the calibration samples.
void all_check_sweep(Job& job, const Source& source, const std::vector<Variant>& all) {
  const Calibration heldout = all_open_heldout(job, source.model.vocab);  // reads every token
  const auto plans = std::ranges::count_if(all, [](const Variant& v) { return !v.automatic(); });
  const Options& o = job.options;
  const bool rounded = o.weight_bits != WeightBits::source && o.outputs != OutputChoice::none;
  all_check_pass(job, source.model, heldout.samples, plans + 1, rounded);
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
    given = read_saliency_for_plans(file);
    if (given.info.model_digest == source.digest) return;
    fail(ExitCode::bad_input, "{}: it is of another model (digest {}, this one {})", file.string(),
         given.info.model_digest, source.digest);
  });
  job.log.info(
      fmt::format("{}: {} samples, {} tokens, used as they are", file.string(), given.info.samples, given.info.tokens));
  return given;
}

fs::path saliency_path(const Options& o) { return o.saliency.empty() ? o.output / "saliency.h5" : o.saliency; }

SaliencyFile all_saliency(Job& job, const Source& source) {
  const Options& o = job.options;
  if (o.calibration.empty()) return all_given_saliency(job, source);
  return all_observe_job(job, source, saliency_path(o));
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

/// The file whose importance of inputs weighs the errors of a plan's 4-bit model; "" = none, or what --imatrix names.
fs::path all_importance_file(Job& job, const Source& source, const PlannedVariant& planned,
                             const SaliencyFile& saliency) {
  const Options& o = job.options;
  if (!o.imatrix.empty()) return {};
  if (o.imatrix_after_prune) return all_observe_survivors(job, source, planned.plan, planned.variant.name);
  return informs(o, o.calibration.empty() ? saliency.info.collected : o.collected) ? saliency_path(o) : "";
}

/// The models that a plan becomes, with the importance that its 4-bit one is rounded by.
std::vector<OutputKind> all_settle_kinds(Job& job, const Source& source, const PlannedVariant& planned,
                                         std::vector<OutputKind> kinds, const SaliencyFile& saliency) {
  for (OutputKind& kind : kinds) {
    kind.options.write.importance_pending = false;
    if (!planned.write || !kind.options.write.quantize) continue;
    const fs::path file = all_importance_file(job, source, planned, saliency);
    if (file.empty()) continue;
    job.world.all_try([&] { use_importance(kind.options, source, planned.plan, file, job.log); });
  }
  return kinds;
}

/// Leaves `<name>.plan.json` and, where they are wanted, the models that the plan becomes, unless an earlier run has.
/// @param evaluation  for the model cards; "" = none
void all_make(Job& job, const Source& source, const PlannedVariant& planned, const std::vector<OutputKind>& all_kinds,
              const SaliencyFile& saliency, const std::string& evaluation) {
  const Plan& plan = planned.plan;
  const std::string& name = planned.variant.name;
  job.log.info(fmt::format("plan {}: {} of {} experts stay in each of {} layers", name, plan.kept, plan.experts,
                           plan.layers.size()));
  const std::vector<OutputKind> kinds = all_settle_kinds(job, source, planned, all_kinds, saliency);
  std::vector<const OutputKind*> left;
  for (const OutputKind& kind : kinds) {
    Job own{job.world, kind.options, job.log, job.progress, job.pulse};
    if (planned.write && !all_is_finished(own, source, plan, job.options.output / (name + kind.ending))) {
      left.push_back(&kind);
    }
  }
  job.world.all_try([&] {
    if (job.world.rank() == 0) write_plan(job.options.output / (name + ".plan.json"), plan);
  });
  for (const OutputKind* kind : left) {
    Job own{job.world, kind->options, job.log, job.progress, job.pulse};
    all_write_output(own, source, plan, job.options.output / (name + kind->ending), evaluation);
  }
}

/// The models with weights of 4 bits, which the masks that plans were measured by do not stand for.
std::vector<fs::path> rounded_models(const Options& options, const std::vector<PlannedVariant>& planned,
                                     const std::vector<OutputKind>& kinds) {
  std::vector<fs::path> models;
  for (const PlannedVariant& p : planned) {
    for (const OutputKind& kind : kinds) {
      if (p.write && kind.options.write.quantize) models.push_back(options.output / (p.variant.name + kind.ending));
    }
  }
  return models;
}

}  // namespace

void run(Job& job) {
  const Options& o = job.options;
  std::vector<Variant> all;
  job.world.all_try([&] {
    all = variants_of(o);
    if (o.model.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    if (o.output.empty()) fail(ExitCode::usage, "--output is missing: the folder for the results");
    if (o.imatrix_after_prune) check_survivors_option(o);
  });
  const Source source = all_open_source(job.world, o.model);
  std::vector<OutputKind> kinds;
  job.world.all_try([&] { kinds = output_kinds(o, source.model, job.log); });
  if (o.weight_bits != WeightBits::source) {
    for (const std::string& line : serving_advice(source.model)) job.log.warn(line);
  }
  if (!o.heldout.empty()) all_check_sweep(job, source, all);
  all_check_outputs(job, source, all, kinds);
  const SaliencyFile saliency = all_saliency(job, source);
  std::vector<PlannedVariant> planned = all_plan(job, saliency, all);
  std::optional<Evaluation> evaluation;
  if (!o.heldout.empty()) evaluation = all_sweep(job, source, planned);
  if (evaluation && job.world.rank() == 0) fmt::print("{}", sweep_table(*evaluation));
  for (const PlannedVariant& p : planned) {
    all_make(job, source, p, kinds, saliency,
             evaluation ? evaluation_markdown(*evaluation, measures_of(*evaluation, p)) : "");
  }
  const std::vector<fs::path> rounded = rounded_models(o, planned, kinds);
  if (evaluation && !rounded.empty()) {
    evaluation = all_extend_sweep(job, source, planned, rounded);
    if (job.world.rank() == 0) fmt::print("\n{}", sweep_table(*evaluation));
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
