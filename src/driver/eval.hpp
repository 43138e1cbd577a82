#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "driver/commands.hpp"
#include "driver/evaluation_file.hpp"
#include "driver/plan.hpp"
#include "driver/source.hpp"

namespace reap {

/// A plan with the name that its results are listed under.
struct NamedPlan {
  std::string name;  // "reap-0.25"
  Plan plan;
};

/// What may be taken from an earlier evaluation of the same model and samples: its result when it is of the same
/// variants, or also when it is of others those that it has; these are kept behind the ones asked for.
enum class Earlier : std::uint8_t { same, extend };

/// Measures how the model, and the model under each plan, predict the samples of --heldout, in one pass: plans are
/// masks, nothing is written. Then one more pass for each other model, made from this one, that is compared with it.
/// Plans of another model are refused, and so are such as keep fewer than top_k experts in a layer. A `file` that
/// already holds this result is used instead, with its calibration and choice; any other existing one is refused unless
/// --overwrite. Empty = none. Writing it is left to the caller. Collective.
/// @param models  folders of the other models
/// @return the same on every rank: plans first, then models
/// @throws SharedError(stopped) when a rank was asked to stop: nothing is kept of the pass
Evaluation all_evaluate_job(Job& job, const Source& source, const std::vector<NamedPlan>& plans,
                            const std::vector<std::filesystem::path>& models, const std::filesystem::path& file,
                            Earlier earlier = Earlier::same);

/// The command: --plan files and --compare folders, or none, to a table and --evaluation.
void eval(Job& job);

}  // namespace reap
