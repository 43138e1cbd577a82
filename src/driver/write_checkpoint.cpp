#include "driver/write_checkpoint.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "driver/atomic_file.hpp"
#include "driver/copy_file.hpp"
#include "driver/digest.hpp"
#include "driver/manifest.hpp"
#include "driver/model_card.hpp"
#include "driver/quantize_config.hpp"
#include "driver/side_files.hpp"
#include "driver/staging.hpp"
#include "driver/unfinished_output.hpp"
#include "driver/version.hpp"
#include "driver/write_files.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// Everything that will be written, but for the manifest. The same on every rank.
struct Output {
  std::vector<OutputFile> files;
  std::string config;
  std::string index;
  std::string card;
  std::string quantization_file;  // name of the side file of that format; "" where it has none
  std::string quantization;
  std::vector<InheritedFile> side_files;
  std::string source_digest;
};

std::string card_of(const Checkpoint& source, const Model& model, const Plan& plan, const WriteOptions& options,
                    const Output& output) {
  CardFacts facts;
  for (const Tensor& tensor : source.tensors()) facts.source_bytes += tensor.bytes;
  for (const OutputFile& file : output.files) {
    for (const OutputTensor& tensor : file.tensors) facts.output_bytes += tensor.info.bytes;
  }
  facts.base_card = base_card_name(output.side_files);
  facts.licences = licence_files(output.side_files);
  facts.evaluation = options.evaluation;
  facts.quantize = options.quantize;
  facts.substitution = options.form == Form::substitution;
  return model_card(source, model, plan, facts);
}

Output plan_all(const Checkpoint& source, const Model& model, const Plan& plan, const WriteOptions& options) {
  Output result;
  result.source_digest = model_digest(source);
  if (plan.model_digest != result.source_digest) {
    fail(ExitCode::bad_input, "the plan is for another model than {} (digest {}, this one {})",
         source.directory().string(), plan.model_digest, result.source_digest);
  }
  result.files = plan_output(source, model, claim_tensors(source, model), plan, options);
  result.config = pruned_config(source, model, plan, options);
  result.index = index_text(result.files);
  if (options.quantize) {
    result.quantization_file = quantization_file(options.quantize->format);
    result.quantization = quantization_config(*options.quantize, model, plan.kept).dump(2) + "\n";
  }
  result.side_files = inherited_side_files(source, options.quantize.has_value());
  result.card = card_of(source, model, plan, options, result);
  return result;
}

/// Bytes that the output needs. The manifest has one line per tensor, as the index does, and about thrice as long.
std::uint64_t bytes_needed(const Checkpoint& source, const Output& output) {
  std::uint64_t bytes =
      output.config.size() + output.card.size() + 4 * output.index.size() + output.quantization.size();
  for (const OutputFile& file : output.files) bytes += file.bytes;
  for (const InheritedFile& file : output.side_files) bytes += InputFile(source.directory() / file.source).size();
  return bytes;
}

/// Writes everything but the safetensors files. @return the files, in the order in which the manifest lists them
std::vector<ManifestSideFile> write_side_files(const Checkpoint& source, const Output& output,
                                               const fs::path& directory) {
  std::vector<ManifestSideFile> written;
  const auto write = [&](const char* name, const std::string& text) {
    write_file_atomically(directory / name, text);
    written.push_back({name, text.size(), sha256_of(text)});
  };
  write("config.json", output.config);
  write("model.safetensors.index.json", output.index);
  if (!output.quantization_file.empty()) write(output.quantization_file.c_str(), output.quantization);
  write(kCardName, output.card);
  for (const auto& [name, from] : output.side_files) {
    FileDigests digests = copy_side_file(source.directory() / from, directory / name);
    written.push_back({name, digests.bytes, std::move(digests.sha256)});
  }
  return written;
}

Manifest describe(const Checkpoint& source, const Plan& plan, const WriteOptions& options, const Output& output,
                  std::vector<FileDigests> digests) {
  Manifest manifest;
  manifest.software = "reap_dist " + release();
  manifest.model_type = plan.model_type;
  manifest.source_digest = output.source_digest;
  manifest.calibration_digest = plan.calibration_digest;
  manifest.compute = plan.compute;
  manifest.block_tokens = plan.block_tokens;
  manifest.numerics_id = plan.numerics_id;
  manifest.plan = {sha256_of(plan_text(plan)), plan.request, plan.experts, plan.kept, plan.top_k, {}};
  for (const LayerPlan& layer : plan.layers) manifest.plan.keep.push_back(layer.keep);
  manifest.max_shard_bytes = options.max_shard_bytes;
  manifest.mtp = options.mtp;
  manifest.quantize = options.quantize;
  manifest.form = options.form;
  for (std::size_t i = 0; i < output.files.size(); ++i) {
    const OutputFile& file = output.files[i];
    ManifestFile& entry = manifest.files.emplace_back(ManifestFile{file.name, file.bytes, digests[i].sha256, {}});
    entry.tensors.reserve(file.tensors.size());
    for (std::size_t t = 0; t < file.tensors.size(); ++t) {
      const TensorInfo& info = file.tensors[t].info;
      const std::int64_t from = file.tensors[t].source;
      entry.tensors.push_back({info.name, info.dtype, info.shape, from < 0 ? "" : source.tensors()[from].name,
                               std::move(digests[i].xxh3[t])});
    }
  }
  return manifest;
}

}  // namespace

void all_write_checkpoint(const Comm& world, const Checkpoint& source, const Model& model, const Plan& plan,
                          const fs::path& output_directory, const WriteOptions& options, const WriteEvents& events) {
  const bool first = world.rank() == 0;
  Output output;
  world.all_try([&] { output = plan_all(source, model, plan, options); });
  const Staging staging(output_directory);
  const fs::path& directory = staging.directory();
  world.all_try([&] {
    if (!first) return;
    staging.create(source.directory(), bytes_needed(source, output), options.overwrite,
                   output_stamp(source, output.source_digest, plan, options));
  });
  try {
    std::vector<FileDigests> digests = all_write_files(world, source, output.files, directory, events);
    world.all_try([&] {
      if (!first) return;
      Manifest manifest = describe(source, plan, options, output, std::move(digests));
      manifest.side_files = write_side_files(source, output, directory);
      manifest.output_digest = model_digest(Checkpoint(directory));
      write_file_atomically(directory / kManifestName, manifest_text(manifest));
    });
    if (events.all_check) events.all_check(directory);
    world.all_try([&] {
      if (first) staging.publish();
    });
  } catch (const Error& error) {
    // A full disk must not stay full, and damage must not be kept; but what another job can go on with may stay.
    const bool useful = error.code() == ExitCode::stopped || error.code() == ExitCode::peer;
    if (first && !useful) staging.discard();
    throw;
  } catch (...) {
    if (first) staging.discard();
    throw;
  }
}

}  // namespace reap
