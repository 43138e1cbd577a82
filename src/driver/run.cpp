#include "driver/run.hpp"

#include <fmt/format.h>

#include <set>

#include "driver/calibration.hpp"
#include "driver/observe.hpp"
#include "driver/run_log.hpp"
#include "driver/write_output.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// One output of a run.
struct Variant {
  PlanRequest request;
  std::string name;  // "reap-0.25", "frequency-keep-192"
};

std::vector<Variant> variants(const Options& o) {
  if (o.ratios.empty() && o.plan_request.keep == 0) {
    fail(ExitCode::usage, "--ratio or --keep is missing: how many experts to drop, e.g. --ratio 0.25 0.5");
  }
  std::vector<Variant> result;
  for (const std::string& criterion : o.criteria) {
    PlanRequest request = o.plan_request;
    request.criterion = criterion;
    if (request.keep > 0) result.push_back({request, plan_name(request)});
    for (const double ratio : o.ratios) {
      request.ratio = ratio;
      result.push_back({request, plan_name(request)});
    }
  }
  std::set<std::string> names;
  for (const Variant& v : result) {
    if (!names.insert(v.name).second) fail(ExitCode::usage, "{} is asked for twice", v.name);
  }
  return result;
}

/// What would fail after hours of computing fails now.
void all_check_outputs(Job& job, const Source& source, const std::vector<Variant>& all) {
  job.world.all_try([&] {
    const Options& o = job.options;
    const RouterSpec& router = source.model.router;
    for (const Variant& v : all) kept_experts(v.request, router.experts, router.top_k);
    if (job.world.rank() != 0) return;
    if (!o.calibration.empty()) {
      const Calibration calibration = open_calibration(o.calibration, source.model.vocab);
      check_domains(o.plan_request, calibration.domain_names);
    }
    for (const Variant& v : all) check_output(source, v.request, o.output / v.name, o.write);
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

/// Leaves `<name>/` and `<name>.plan.json`, unless an earlier run has.
void all_make(Job& job, const Source& source, const SaliencyFile& saliency, const Variant& variant) {
  const Plan plan = all_decide(job.world, saliency, variant);
  job.log.info(fmt::format("plan {}: {} of {} experts stay in each of {} layers", variant.name, plan.kept, plan.experts,
                           plan.layers.size()));
  const fs::path output = job.options.output / variant.name;
  const bool finished = all_is_finished(job, source, plan, output);
  job.world.all_try([&] {
    if (job.world.rank() == 0) write_plan(output.string() + ".plan.json", plan);
  });
  if (!finished) all_write_output(job, source, plan, output);
}

}  // namespace

void run(Job& job) {
  const Options& o = job.options;
  std::vector<Variant> all;
  job.world.all_try([&] {
    all = variants(o);
    if (o.model.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    if (o.output.empty()) fail(ExitCode::usage, "--output is missing: the folder for the results");
  });
  const Source source = all_open_source(job.world, o.model);
  all_check_outputs(job, source, all);
  const SaliencyFile saliency = all_saliency(job, source);
  for (const Variant& variant : all) all_make(job, source, saliency, variant);
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
  if (!all_is_finished(job, source, plan, o.output)) all_write_output(job, source, plan, o.output);
}

}  // namespace reap
