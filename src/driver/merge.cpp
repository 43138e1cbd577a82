#include "driver/merge.hpp"

#include <fmt/format.h>

#include "driver/merge_saliency.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

void check_options(const Options& o) {
  if (o.saliency.empty()) fail(ExitCode::usage, "--saliency is missing: the file to write");
  if (o.paths.empty()) fail(ExitCode::usage, "merge: name the saliency files to add");
  if (fs::exists(o.saliency) && !o.write.overwrite) {
    fail(ExitCode::bad_input, "{}: exists; name another file or give --overwrite", o.saliency.string());
  }
}

SaliencyFile merged(const Options& o) {
  SaliencyFile sum = read_saliency(o.paths[0]);
  for (std::size_t i = 1; i < o.paths.size(); ++i) {
    SaliencyFile file = read_saliency(o.paths[i]);
    const Scope scope("adding " + o.paths[i].string());
    sum = add(std::move(sum), std::move(file));
  }
  for (const fs::path& path : o.subtract) {
    SaliencyFile file = read_saliency(path);
    const Scope scope("subtracting " + path.string());
    sum = subtract(std::move(sum), std::move(file));
  }
  return sum;
}

}  // namespace

void merge(Job& job) {
  const Options& o = job.options;
  job.world.all_try([&] {
    check_options(o);
    if (job.world.rank() != 0) return;
    const SaliencyFile sum = merged(o);
    write_saliency(o.saliency, sum);
    job.log.info(fmt::format("{}: {} samples, {} tokens, calibration {}", o.saliency.string(), sum.info.samples,
                             sum.info.tokens, sum.info.calibration_digest));
  });
}

}  // namespace reap
