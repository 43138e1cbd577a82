#include "driver/verify.hpp"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "driver/concurrently.hpp"
#include "driver/share_out.hpp"
#include "driver/verify_bytes.hpp"
#include "driver/verify_structure.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// A pruned model and its source, found to agree in all but the bytes, which are still to be compared.
struct Pair {
  Pair(const fs::path& source_directory, const fs::path& output_directory, const MeanOutputs* means)
      : source(Checkpoint(source_directory)), manifest(open_manifest(output_directory, source)) {
    Checkpoint opened(output_directory);
    verify_config(opened, source, manifest);
    if (manifest.form == Form::substitution) {
      output.emplace(std::move(opened), source.model);
      slices = verify_substituted(*output, source, manifest, means);
    } else {
      output.emplace(std::move(opened));
      slices = verify_tensors(*output, source, manifest);
    }
    verify_manifest(*output, slices, manifest);
  }

  OpenModel source;
  Manifest manifest;
  std::optional<OpenModel> output;
  std::vector<Slice> slices;
};

/// Weights can only be derived again with the importance that they were derived with.
void check_importance(const Manifest& manifest, const Quantizer* quantizer, const fs::path& output) {
  const std::string made_with = manifest.quantize ? manifest.quantize->importance.sha256 : "";
  if (made_with.empty() || (quantizer != nullptr && quantizer->importance() == made_with)) return;
  const bool of_saliency = manifest.quantize->importance.least_tokens > 0;
  fail(ExitCode::bad_input, "{}: was quantised with the {} file of SHA-256 {}; give it as --{}", output.string(),
       of_saliency ? "saliency" : "importance", made_with, of_saliency ? "saliency" : "imatrix");
}

}  // namespace

const char* VerifyReport::finding() const {
  return quantised ? "every one equals its source or what rounding makes of it" : "every one equals its source";
}

VerifyReport all_verify(const Comm& world, const fs::path& source, const fs::path& output,
                        const std::function<void(std::int64_t bytes)>& progress, Quantizer* quantizer,
                        const MeanOutputs* means) {
  std::unique_ptr<const Pair> pair;
  world.all_try([&] {
    pair = std::make_unique<const Pair>(source, output, means);
    check_importance(pair->manifest, quantizer, output);
  });
  const Checkpoint& checkpoint = pair->output->checkpoint;
  world.all_try([&] {
    if (world.rank() != 0) return;
    verify_index(checkpoint);
    verify_side_files(checkpoint, pair->source.checkpoint, pair->manifest);
  });
  world.all_try([&] {
    std::vector<std::uint64_t> bytes;
    for (const ManifestFile& file : pair->manifest.files) bytes.push_back(file.bytes);
    const std::vector<std::size_t> own = share_out(bytes, world.size(), world.rank());
    const auto one_at_a_time = serialised(progress);
    const auto check = [&](std::size_t i) {
      verify_file(*pair->output, pair->source, pair->slices, pair->manifest, own[i], quantizer, one_at_a_time);
    };
    for_each_concurrently(own.size(), kFilesAtOnce, check, [&] { world.idle(); });
  });
  VerifyReport report;
  report.tensors = static_cast<std::int64_t>(checkpoint.tensors().size());
  for (const Tensor& tensor : checkpoint.tensors()) report.bytes += static_cast<std::int64_t>(tensor.bytes);
  report.experts = pair->manifest.plan.kept;
  report.quantised = pair->manifest.quantize.has_value();
  return report;
}

}  // namespace reap
