#include "driver/sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.hpp"

namespace reap {
namespace {

// An automatic criterion chooses by one half of the held-out samples; what it has won shows on the other.
constexpr std::size_t kSelection = 0;
constexpr std::size_t kReport = 1;

const ModelMeasures& measures_of(const Evaluation& evaluation, const std::string& variant) {
  const auto found = std::ranges::find(evaluation.variants, variant, &EvaluatedVariant::name);
  REAP_CHECK(found != evaluation.variants.end(), "{} has not been measured", variant);
  return found->measures;
}

/// Takes the plan of the candidate with the lowest KL on the selection half, of equals the first.
/// @return the choice, for sweep.json
Json choose(PlannedVariant& automatic, const std::vector<PlannedVariant>& planned, const Evaluation& evaluation,
            const std::vector<std::string>& criteria) {
  Json choice{{"name", automatic.variant.name}, {"chosen", nullptr}, {"by", "kl"}, {"selection_half", kSelection}};
  double lowest = 0;
  for (const std::string& criterion : criteria) {
    const auto found = std::ranges::find_if(planned, [&](const PlannedVariant& p) {
      return p.variant.request.criterion == criterion && p.variant.as_small_as(automatic.variant);
    });
    REAP_CHECK(found != planned.end(), "no candidate {} for {}", criterion, automatic.variant.name);
    const ModelMeasures& measures = measures_of(evaluation, found->variant.name);
    const double kl = measures.halves[kSelection].kl;
    choice["candidates"].push_back(
        {{"name", found->variant.name}, {"selection", kl}, {"report", measures.halves[kReport].kl}});
    if (!choice["chosen"].is_null() && !(kl < lowest)) continue;
    lowest = kl;
    choice["chosen"] = found->variant.name;
    automatic.plan = found->plan;
    automatic.plan_of = found->variant.name;
  }
  return choice;
}

/// Of the variants that leave as many experts only the one with the lowest KL is written, of equals the first.
void write_best_only(std::vector<PlannedVariant>& planned, const Evaluation& evaluation) {
  const auto kl = [&](const PlannedVariant* p) { return measures_of(evaluation, p->plan_of).all.kl; };
  std::vector<PlannedVariant*> best;
  for (PlannedVariant& p : planned) {
    if (!std::exchange(p.write, false) || p.variant.candidate) continue;
    const auto rival =
        std::ranges::find_if(best, [&](const PlannedVariant* other) { return other->variant.as_small_as(p.variant); });
    if (rival == best.end()) {
      best.push_back(&p);
    } else if (kl(&p) < kl(*rival)) {
      *rival = &p;
    }
  }
  for (PlannedVariant* p : best) p->write = true;
}

/// Drops what an earlier run has left and this one makes anew, or has another calibration for.
void keep_of_earlier(Evaluation& evaluation, const std::vector<PlannedVariant>& planned,
                     const std::string& calibration) {
  const auto asked = [&](const std::string& name) {
    return std::ranges::any_of(planned, [&](const PlannedVariant& p) { return p.variant.name == name; });
  };
  Json choices = Json::array();
  if (evaluation.calibration_digest == calibration) {
    for (const Json& choice : evaluation.choice) {
      if (!asked(choice["name"].get<std::string>())) choices.push_back(choice);
    }
  } else {
    std::erase_if(evaluation.variants, [&](const EvaluatedVariant& variant) { return !asked(variant.name); });
  }
  evaluation.calibration_digest = calibration;
  evaluation.choice = std::move(choices);
}

std::vector<NamedPlan> named_plans(const std::vector<PlannedVariant>& planned) {
  std::vector<NamedPlan> plans;
  for (const PlannedVariant& p : planned) {
    if (!p.variant.automatic()) plans.push_back({p.variant.name, p.plan});
  }
  return plans;
}

std::filesystem::path sweep_file(const Options& options) { return options.output / "sweep.json"; }

void all_write_sweep(Job& job, const Evaluation& evaluation) {
  job.world.all_try([&] {
    if (job.world.rank() == 0) write_evaluation(sweep_file(job.options), evaluation);
  });
}

}  // namespace

const ModelMeasures& measures_of(const Evaluation& evaluation, const PlannedVariant& planned) {
  return measures_of(evaluation, planned.plan_of);
}

Evaluation all_sweep(Job& job, const Source& source, std::vector<PlannedVariant>& planned) {
  const Options& o = job.options;
  const std::vector<NamedPlan> plans = named_plans(planned);
  Evaluation evaluation = all_evaluate_job(job, source, plans, {}, sweep_file(o), Earlier::extend);
  keep_of_earlier(evaluation, planned, plans.front().plan.calibration_digest);
  for (PlannedVariant& p : planned) {
    if (p.variant.automatic()) evaluation.choice.push_back(choose(p, planned, evaluation, o.auto_among));
  }
  if (o.outputs == OutputChoice::best) write_best_only(planned, evaluation);
  all_write_sweep(job, evaluation);
  return evaluation;
}

Evaluation all_extend_sweep(Job& job, const Source& source, const std::vector<PlannedVariant>& planned,
                            const std::vector<std::filesystem::path>& models) {
  const Evaluation evaluation =
      all_evaluate_job(job, source, named_plans(planned), models, sweep_file(job.options), Earlier::extend);
  all_write_sweep(job, evaluation);
  return evaluation;
}

std::string sweep_table(const Evaluation& evaluation) {
  std::string text = evaluation_table(evaluation);
  for (const Json& choice : evaluation.choice) {
    text += fmt::format("\n{} is {}, the lowest KL on half of the samples; on the other half:",
                        choice["name"].get<std::string>(), choice["chosen"].get<std::string>());
    for (const Json& candidate : choice["candidates"]) {
      const Json& kl = candidate["report"];  // null, as read from a file, when that half has no tokens
      const double value = kl.is_number() ? kl.get<double>() : std::numeric_limits<double>::quiet_NaN();
      text += fmt::format(" {} {:.5f}", candidate["name"].get<std::string>(), value);
    }
  }
  return evaluation.choice.empty() ? text : text + "\n";
}

}  // namespace reap
