#pragma once

#include <string>
#include <vector>

#include "driver/commands.hpp"
#include "driver/eval.hpp"
#include "driver/source.hpp"
#include "driver/variants.hpp"

namespace reap {

/// A variant with what has been decided for it.
struct PlannedVariant {
  Variant variant;
  Plan plan;
  std::string plan_of;  // the variant whose plan this is: its own name, or the one that an automatic one has chosen
  bool write = true;    // as a pruned model
};

/// Measures the plans of all variants in one pass over --eval, and keeps the result in sweep.json of the output folder:
/// what an earlier run has measured there is not measured again. Gives automatic variants the plan that does best, and
/// says which variants --write asks for. Collective.
/// @param planned  in the order of variants_of(); those that are automatic have no plan yet
/// @return what has been measured, with the choice
Evaluation all_sweep(Job& job, const Source& source, std::vector<PlannedVariant>& planned);

/// Adds models that were made by plans of the sweep, which masks cannot stand for, to what has been measured; what an
/// earlier run has measured of them is not measured again. Collective.
Evaluation all_extend_sweep(Job& job, const Source& source, const std::vector<PlannedVariant>& planned,
                            const std::vector<std::filesystem::path>& models);

/// How the plan of a variant does. @throws Error(bug) when it was not measured
const ModelMeasures& measures_of(const Evaluation& evaluation, const PlannedVariant& planned);

/// The evaluation's table, and what was chosen.
std::string sweep_table(const Evaluation& evaluation);

}  // namespace reap
