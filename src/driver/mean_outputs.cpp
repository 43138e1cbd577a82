#include "driver/mean_outputs.hpp"

#include <cmath>

#include "kernels/check.hpp"

namespace reap {

MeanOutputs mean_outputs(const SaliencyFile& saliency) {
  const Saliency& table = saliency.saliency;
  if (table.outputs.empty()) {
    fail(ExitCode::usage, "the saliency file has no sums of the experts' outputs; observe with --collect gram outputs");
  }
  MeanOutputs means{table.experts, table.hidden, std::vector<bf16>(table.outputs.size())};
  for (std::int64_t layer = 0; layer < table.layers; ++layer) {
    for (std::int64_t expert = 0; expert < table.experts; ++expert) {
      std::int64_t count = 0;
      for (std::int64_t group = 0; group < table.groups; ++group) count += table.count(group, layer, expert);
      const std::int64_t first = (layer * table.experts + expert) * table.hidden;
      for (std::int64_t i = first; count > 0 && i < first + table.hidden; ++i) {
        const double sum = static_cast<double>(table.outputs[static_cast<std::size_t>(i)]);
        const double mean = std::ldexp(sum, -kOutputFractionBits) / static_cast<double>(count);
        means.values[static_cast<std::size_t>(i)] = to_bf16(static_cast<float>(mean));
      }
    }
  }
  return means;
}

MeanOutputs read_mean_outputs(const std::filesystem::path& file, const Measured& by) {
  if (file.empty()) {
    fail(ExitCode::usage, "--saliency is missing: the file that the plan was made from, with the experts' outputs");
  }
  const SaliencyFile saliency = read_saliency(file, {.outputs = true});
  const SaliencyInfo& info = saliency.info;
  if (Measured{info.model_digest, info.calibration_digest, info.compute, info.block_tokens, info.numerics_id} != by) {
    fail(ExitCode::bad_input, "{}: it is not what the plan rests on: another model, calibration or way of computing",
         file.string());
  }
  const Scope scope(file.string());
  return mean_outputs(saliency);
}

}  // namespace reap
