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

/// What some files have collected and the sum has not, because others have not.
std::string left_out(const Collected& any, const Collected& sum) {
  if (any == sum) return "";
  std::vector<std::string_view> what;
  if (any.gram != sum.gram) what.emplace_back("gram");
  if (any.outputs != sum.outputs) what.emplace_back("outputs");
  if (any.imatrix != sum.imatrix) what.emplace_back("imatrix");
  if (any.moments != sum.moments) what.emplace_back("moments");
  return fmt::format("not all files hold {}: left out of the sum", fmt::join(what, " and "));
}

SaliencyFile merged(const Options& o, Collected& any) {
  const auto read = [&any](const fs::path& path) {
    SaliencyFile file = read_saliency(path);
    any = {any.gram || file.info.collected.gram, any.outputs || file.info.collected.outputs,
           any.imatrix || file.info.collected.imatrix, any.moments || file.info.collected.moments};
    return file;
  };
  SaliencyFile sum = read(o.paths[0]);
  for (std::size_t i = 1; i < o.paths.size(); ++i) {
    SaliencyFile file = read(o.paths[i]);
    const Scope scope("adding " + o.paths[i].string());
    sum = add(std::move(sum), std::move(file));
  }
  for (const fs::path& path : o.subtract) {
    SaliencyFile file = read(path);
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
    Collected any;
    const SaliencyFile sum = merged(o, any);
    if (const std::string text = left_out(any, sum.info.collected); !text.empty()) job.log.warn(text);
    write_saliency(o.saliency, sum);
    job.log.info(fmt::format("{}: {} samples, {} tokens, calibration {}", o.saliency.string(), sum.info.samples,
                             sum.info.tokens, sum.info.calibration_digest));
  });
}

}  // namespace reap
