#include "driver/eval.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "driver/compared_models.hpp"
#include "driver/digest.hpp"
#include "driver/heldout.hpp"
#include "driver/pass_rank.hpp"
#include "driver/stop_request.hpp"
#include "driver/watched_pass.hpp"
#include "kernels/check.hpp"
#include "shard/evaluation.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// "plans/reap-0.25.plan.json" -> "reap-0.25".
std::string name_of_plan(const fs::path& file) {
  std::string name = file.filename().string();
  for (const std::string_view ending : {".json", ".plan"}) {
    if (name.size() > ending.size() && name.ends_with(ending)) name.resize(name.size() - ending.size());
  }
  return name;
}

std::vector<NamedPlan> read_plans(const std::vector<fs::path>& files) {
  std::vector<NamedPlan> plans;
  for (const fs::path& file : files) plans.push_back({name_of_plan(file), read_plan(file)});
  return plans;
}

void check_plan(const NamedPlan& named, const Source& source) {
  const Plan& plan = named.plan;
  if (plan.model_digest != source.digest) {
    fail(ExitCode::bad_input, "plan {}: it is for another model (digest {}, this one {})", named.name,
         plan.model_digest, source.digest);
  }
  const RouterSpec& router = source.model.router;
  const auto layers = static_cast<std::size_t>(source.model.layers);
  if (plan.layers.size() != layers || plan.experts != router.experts) {
    fail(ExitCode::bad_input, "plan {}: {} layers of {} experts, the model has {} of {}", named.name,
         plan.layers.size(), plan.experts, layers, router.experts);
  }
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const std::size_t kept = plan.layers[layer].keep.size();
    if (static_cast<std::int64_t>(kept) >= router.top_k) continue;
    fail(ExitCode::bad_input, "plan {}: layer {} keeps {} experts, but each token takes {}", named.name, layer, kept,
         router.top_k);
  }
}

void check_names(const std::vector<EvaluatedVariant>& variants) {
  std::set<std::string> names;
  for (const EvaluatedVariant& variant : variants) {
    if (names.insert(variant.name).second) continue;
    fail(ExitCode::usage, "two plans or models are named {}; rename one", variant.name);
  }
}

/// Puts what the plans named in `left` keep behind the unpruned model, each set of experts once.
/// @return the place of each of them
std::vector<std::size_t> add_variants(std::vector<KeptExperts>& variants, const std::vector<NamedPlan>& plans,
                                      const std::vector<std::size_t>& left) {
  std::vector<std::size_t> place;
  for (const std::size_t i : left) {
    KeptExperts kept;
    for (const LayerPlan& layer : plans[i].plan.layers) kept.push_back(layer.keep);
    const auto same = std::find(variants.begin() + 1, variants.end(), kept);
    place.push_back(static_cast<std::size_t>(same - variants.begin()));
    if (same == variants.end()) variants.push_back(std::move(kept));
  }
  return place;
}

EvaluatedVariant described(const NamedPlan& named) {
  const PlanRequest& request = named.plan.request;
  EvaluatedVariant variant{.name = named.name, .criterion = request.criterion, .ratio = request.ratio};
  if (request.allocation == Allocation::global) variant.criterion += " global";
  for (const LayerPlan& layer : named.plan.layers) {
    variant.kept.push_back(static_cast<std::int64_t>(layer.keep.size()));
  }
  if (std::ranges::adjacent_find(variant.kept, std::ranges::not_equal_to{}) == variant.kept.end()) {
    variant.kept.resize(1);
  }
  Xxh3 digest;
  const std::string text = plan_text(named.plan);
  digest.update(std::as_bytes(std::span(text)));
  variant.plan_digest = digest.hex();
  return variant;
}

/// Samples that a plan was made from say little of how it does on others.
void warn_of_own_samples(Job& job, const Calibration& heldout, const std::vector<NamedPlan>& plans) {
  const auto own = [&](const NamedPlan& named) { return named.plan.calibration_digest == heldout.digest; };
  if (std::ranges::none_of(plans, own)) return;
  job.log.warn(
      fmt::format("eval: {} holds the very samples that the plans were made from: their cost will look too low",
                  job.options.heldout.string()));
}

/// The evaluation without its measures.
Evaluation described(const Source& source, const Calibration& heldout, const std::vector<NamedPlan>& plans,
                     const std::vector<ComparedModel>& models, const Options& options, const std::string& numerics_id) {
  Evaluation evaluation{.model_type = source.model.type,
                        .model_digest = source.digest,
                        .heldout_digest = heldout.digest,
                        .samples = heldout.samples.samples(),
                        .tokens = heldout.samples.tokens(),
                        .compute = options.compute == Compute::fp32 ? "fp32" : "bf16",
                        .block_tokens = options.block_tokens,
                        .numerics = numerics_id,
                        .domains = heldout.domain_names};
  for (const NamedPlan& plan : plans) evaluation.variants.push_back(described(plan));
  for (const ComparedModel& model : models) evaluation.variants.push_back(model.variant);
  check_names(evaluation.variants);
  return evaluation;
}

/// An earlier result that can be used, or nothing. The file is read by rank 0 only.
std::optional<Evaluation> all_find_earlier(Job& job, const Evaluation& wanted, const fs::path& file, Earlier earlier) {
  std::string text;
  job.world.all_try([&] {
    if (job.world.rank() != 0 || file.empty()) return;
    check_writable(file);
    if (!fs::exists(file)) return;
    std::string other;
    try {
      const Evaluation found = read_evaluation(file);
      other = difference(found, wanted);
      if (other.empty() && earlier == Earlier::same && !same_variants(found, wanted)) other = "other plans";
      if (other.empty()) text = evaluation_text(found);
    } catch (const Error&) {
      if (!job.options.write.overwrite) throw;  // else whatever it is may be replaced
    }
    if (text.empty() && !job.options.write.overwrite) {
      fail(ExitCode::bad_input, "{}: exists and was made with {}; name another file or give --overwrite", file.string(),
           other);
    }
  });
  text = job.world.all_broadcast(0, text);
  if (text.empty()) return std::nullopt;
  return parse_evaluation(text, file.string());
}

/// Variants that have to be measured, as places in the evaluation.
std::vector<std::size_t> all_of(const Evaluation& evaluation) {
  std::vector<std::size_t> all(evaluation.variants.size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// Takes what an earlier evaluation has, and puts what else it has behind. @return the variants that it lacks
std::vector<std::size_t> take_measures(Evaluation& evaluation, const Evaluation& earlier) {
  std::vector<std::size_t> left;
  for (const std::size_t i : all_of(evaluation)) {
    EvaluatedVariant& variant = evaluation.variants[i];
    const auto found = std::ranges::find_if(
        earlier.variants, [&](const EvaluatedVariant& measured) { return measured.same_as(variant); });
    if (found == earlier.variants.end()) {
      left.push_back(i);
    } else {
      variant.measures = found->measures;
    }
  }
  for (const EvaluatedVariant& other : earlier.variants) {
    const bool asked =
        std::ranges::find(evaluation.variants, other.name, &EvaluatedVariant::name) != evaluation.variants.end();
    if (!asked) evaluation.variants.push_back(other);
  }
  evaluation.base = earlier.base;
  evaluation.calibration_digest = earlier.calibration_digest;
  evaluation.choice = earlier.choice;
  return left;
}

/// The pass; what it computes is lost when it is stopped.
template <class AllRun>  // PredictionSums all_run(const PassEvents& events)
PredictionSums all_measure(Job& job, const PassRank& rank, const PassPlan& plan, const AllRun& all_run) {
  const Workload& work = rank.setup.work;
  const double flops_per_token =
      static_cast<double>(plan.model.layers) * layer_flops_per_token(plan.model, work.mean_context) +
      head_flops_per_token(plan.model);
  install_stop_handlers();  // what comes after an evaluation, writing, heeds them too
  PassEvents events;
  events.wishes.stop = [] { return stop_requested(); };
  std::optional<PredictionSums> sums;
  try {
    all_watch_pass(job, plan, "eval", flops_per_token, events,
                   [&](const PassEvents& all) { sums.emplace(all_run(all)); });
  } catch (const SharedError& e) {
    if (e.code() != ExitCode::stopped) throw;
    throw SharedError(ExitCode::stopped,
                      "stopped on request; an evaluation saves nothing on its way: the same command starts over");
  }
  return std::move(*sums);
}

/// The pass of a model that is compared with `base`, on the same grid.
ModelMeasures all_compare_job(Job& job, const ComparedModel& model, const Calibration& heldout, const Grid& grid,
                              const PassedModel& base) {
  Options options = job.options;
  options.grid = grid;
  Job own{job.world, options, job.log, job.progress, job.pulse};
  const PassRank rank = all_join_pass(own, model.source.model, heldout.samples, 1, true);
  const PassPlan pass = rank.plan(model.source, heldout.samples, options);
  job.log.info(fmt::format("eval: {}, compared with {}; {}", model.source.checkpoint.directory().string(),
                           base.checkpoint.directory().string(), rank.describe()));
  return measures_of(all_measure(own, rank, pass,
                                 [&](const PassEvents& events) {
                                   return all_compare(job.world, job.pulse, pass, *rank.backend, base, events);
                                 }),
                     1);
}

}  // namespace

Evaluation all_evaluate_job(Job& job, const Source& source, const std::vector<NamedPlan>& plans,
                            const std::vector<fs::path>& models, const fs::path& file, Earlier may_use) {
  const Options& o = job.options;
  job.world.all_try([&] {
    for (const NamedPlan& plan : plans) check_plan(plan, source);
  });
  const std::vector<ComparedModel> compared = all_open_compared(job.world, source, models);
  const Calibration heldout = all_open_heldout(job, source.model.vocab);
  warn_of_own_samples(job, heldout, plans);
  const auto variants = static_cast<std::int64_t>(plans.size()) + 1;
  const PassRank rank = all_join_pass(job, source.model, heldout.samples, variants, !models.empty());
  Evaluation evaluation;
  job.world.all_try([&] { evaluation = described(source, heldout, plans, compared, o, rank.backend->numerics_id()); });
  const std::optional<Evaluation> earlier = all_find_earlier(job, evaluation, file, may_use);
  const std::vector<std::size_t> left = earlier ? take_measures(evaluation, *earlier) : all_of(evaluation);
  if (earlier && left.empty()) {
    job.log.info(fmt::format("eval: {} already holds this result; using it", file.string()));
    return evaluation;
  }

  const auto first_model = std::ranges::lower_bound(left, plans.size());
  const std::vector<std::size_t> left_plans(left.begin(), first_model), left_models(first_model, left.end());
  PassPlan pass = rank.plan(source, heldout.samples, o);
  const std::vector<std::size_t> place = add_variants(pass.variants, plans, left_plans);
  std::optional<FinalStates> states;
  job.world.all_try([&] {
    if (!left_models.empty()) states.emplace(pass, *rank.backend);
  });
  job.log.info(fmt::format("eval: {} samples, {} tokens, {} blocks, the model and {} different plans; {}",
                           evaluation.samples, evaluation.tokens, rank.setup.work.blocks.size(),
                           pass.variants.size() - 1, rank.describe()));
  const PredictionSums sums = all_measure(job, rank, pass, [&](const PassEvents& events) {
    return all_evaluate(job.world, job.pulse, pass, *rank.backend, events, states ? &*states : nullptr);
  });
  evaluation.base = measures_of(sums, 0);
  for (std::size_t i = 0; i < left_plans.size(); ++i) {
    evaluation.variants[left_plans[i]].measures = measures_of(sums, static_cast<std::int64_t>(place[i]));
  }
  for (const std::size_t i : left_models) {
    const PassedModel base{source.checkpoint, source.model, *states};
    evaluation.variants[i].measures =
        all_compare_job(job, compared[i - plans.size()], heldout, rank.placement.grid, base);
  }
  return evaluation;
}

void eval(Job& job) {
  const Options& o = job.options;
  std::vector<NamedPlan> plans;
  job.world.all_try([&] { plans = read_plans(o.plans); });
  const Source source = all_open_source(job.world, o.model);
  const Evaluation evaluation = all_evaluate_job(job, source, plans, o.compare, o.evaluation);
  job.world.all_try([&] {
    if (job.world.rank() != 0) return;
    fmt::print("{}", evaluation_table(evaluation));
    if (!o.evaluation.empty()) write_evaluation(o.evaluation, evaluation);
  });
}

}  // namespace reap
