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
  if (!automatic) return all;
  for (const std::string& criterion : o.auto_among) add_variants(all, o, criterion, true);
  add_variants(all, o, "reap", true);
  return all;
}

}  // namespace reap
