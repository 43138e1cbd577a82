#include "driver/run.hpp"

#include <fmt/format.h>

#include <set>

#include "driver/observe.hpp"
#include "driver/run_log.hpp"
#include "driver/share_out.hpp"
#include "driver/staging.hpp"
#include "driver/verify.hpp"
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
    if (request.keep > 0) result.push_back({request, fmt::format("{}-keep-{}", criterion, request.keep)});
    for (const double ratio : o.ratios) {
      request.ratio = ratio;
      result.push_back({request, fmt::format("{}-{}", criterion, ratio)});
    }
  }
  std::set<std::string> names;
  for (const Variant& v : result) {
    if (!names.insert(v.name).second) fail(ExitCode::usage, "{} is asked for twice", v.name);
  }
  return result;
}

/// What would fail after hours of computing fails now.
void all_check_outputs(Job& job, const std::vector<Variant>& all) {
  job.world.all_try([&] {
    const Options& o = job.options;
    if (o.model.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    if (o.output.empty()) fail(ExitCode::usage, "--output is missing: the folder for the results");
    if (job.world.rank() != 0) return;
    for (const Variant& v : all) Staging(o.output / v.name).check(o.model, o.write.overwrite);
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
Plan all_decide(const Comm& world, const SaliencyFile& saliency, const PlanRequest& request, const fs::path& file) {
  std::string text;
  world.all_try([&] {
    if (world.rank() != 0) return;
    const Plan plan = make_plan(saliency, request);
    write_plan(file, plan);
    text = plan_text(plan);
  });
  text = world.all_broadcast(0, text);
  Plan plan;
  world.all_try([&] { plan = parse_plan(text, file.string()); });
  return plan;
}

/// Writes one pruned checkpoint and, unless told not to, proves it before it gets its name.
void all_write_and_verify(Job& job, const Source& source, const Plan& plan, const fs::path& output) {
  std::vector<std::uint64_t> bytes;
  job.world.all_try([&] {
    for (const OutputFile& file :
         plan_output(source.checkpoint, source.model, source.claims, plan, job.options.write)) {
      bytes.push_back(file.bytes);
    }
  });
  if (source.model.mtp_layers > 0 && job.options.write.mtp == Mtp::keep) {
    job.log.warn(
        "MTP tensors are kept whole: engines that build the draft model from num_local_experts will refuse them");
  }
  const auto begin = [&](std::string_view phase) {
    std::uint64_t total = 0, own = 0;
    for (const std::uint64_t file : bytes) total += file;
    for (const std::size_t file : share_out(bytes, job.world.size(), job.world.rank())) own += bytes[file];
    job.progress.begin(phase, "bytes", static_cast<std::int64_t>(total), static_cast<std::int64_t>(own));
  };
  const auto advance = [&](std::int64_t done) { job.progress.advance(done); };
  std::string proof = "not verified";
  const auto all_prove = [&](const fs::path& written) {
    job.progress.end();
    begin("verify");
    const VerifyReport report = all_verify(job.world, source.checkpoint.directory(), written, advance);
    proof = fmt::format("{} tensors, {}; every one equals its source", report.tensors, readable_bytes(report.bytes));
  };
  begin("write");
  all_write_checkpoint(job.world, source.checkpoint, source.model, plan, output, job.options.write, advance,
                       job.options.verify ? std::function<void(const fs::path&)>(all_prove) : nullptr);
  job.progress.end();
  job.log.info(fmt::format("{}: {} experts per layer, {}", output.string(), plan.kept, proof));
}

}  // namespace

void run(Job& job) {
  const Options& o = job.options;
  std::vector<Variant> all;
  job.world.all_try([&] { all = variants(o); });
  all_check_outputs(job, all);
  const Source source = all_open_source(job.world, o.model);
  job.world.all_try([&] {
    const RouterSpec& router = source.model.router;
    for (const Variant& v : all) kept_experts(v.request, router.experts, router.top_k);  // before hours of computing
  });
  const SaliencyFile saliency = all_saliency(job, source);
  for (const Variant& v : all) {
    const Plan plan = all_decide(job.world, saliency, v.request, o.output / (v.name + ".plan.json"));
    job.log.info(fmt::format("plan {}: {} of {} experts stay in each of {} layers", v.name, plan.kept, plan.experts,
                             plan.layers.size()));
    all_write_and_verify(job, source, plan, o.output / v.name);
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
  all_write_and_verify(job, source, plan, o.output);
}

}  // namespace reap
