#include "driver/variants.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace reap {
namespace {

void add_variants(std::vector<Variant>& all, const Options& o, const std::string& criterion, bool candidate) {
  PlanRequest request = o.plan_request;
  request.criterion = criterion;
  const auto add = [&] {
    const std::string name = plan_name(request);
    const bool known = std::ranges::find(all, name, &Variant::name) != all.end();
    if (known && !candidate) fail(ExitCode::usage, "{} is asked for twice", name);
    if (!known) all.push_back({request, name, candidate});
  };
  if (request.keep > 0) add();
  for (const double ratio : o.ratios) {
    request.ratio = ratio;
    add();
  }
}

/// What the calibration pass is told not to sum cannot be planned by after it.
void check_collected(const Options& o, const std::vector<Variant>& all) {
  if (o.calibration.empty() || o.collected.gram) return;
  for (const Variant& v : all) {
    if (v.request.criterion != "gram") continue;
    fail(ExitCode::usage, "{} needs what --collect gram sums{}", v.name,
         v.candidate ? "; --auto-among can name other criteria" : "");
  }
}

}  // namespace

std::vector<Variant> variants_of(const Options& o) {
  if (o.ratios.empty() && o.plan_request.keep == 0) {
    fail(ExitCode::usage, "--ratio or --keep is missing: how many experts to drop, e.g. --ratio 0.25 0.5");
  }
  const bool automatic = std::ranges::find(o.criteria, kAutomatic) != o.criteria.end();
  if (o.heldout.empty() && (automatic || o.outputs == OutputChoice::best)) {
    fail(ExitCode::usage, "{} goes by what is measured on held-out samples: --eval is missing",
         automatic ? "--criterion auto" : "--write best");
  }
  std::vector<Variant> all;
  for (const std::string& criterion : o.criteria) add_variants(all, o, criterion, false);
  if (automatic) {
    for (const std::string& criterion : o.auto_among) add_variants(all, o, criterion, true);
    add_variants(all, o, "reap", true);
  }
  check_collected(o, all);
  return all;
}

}  // namespace reap
