#include "driver/compared_models.hpp"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "driver/digest.hpp"
#include "driver/manifest.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxManifestBytes = 10'000'000'000;

/// "reap", "reap w4a16 opt-rtn", "w4a16 rtn".
std::string made_by(const Manifest& manifest) {
  const std::string& criterion = manifest.plan.request.criterion;
  if (!manifest.quantize) return criterion;
  const std::string rounding = fmt::format("w4a16 {}", name_of(manifest.quantize->method));
  return manifest.plan.kept < manifest.plan.experts ? criterion + " " + rounding : rounding;
}

EvaluatedVariant described(const fs::path& directory, const Source& model, const Source& base) {
  const RouterSpec& router = model.model.router;
  EvaluatedVariant variant{.name = directory.filename().string(), .criterion = "model", .kept = {router.experts}};
  if (variant.name.empty()) variant.name = directory.parent_path().filename().string();  // "folder/"
  variant.ratio = 1 - static_cast<double>(router.experts) / static_cast<double>(base.model.router.experts);
  variant.model_digest = model.digest;
  if (!fs::exists(directory / kManifestName)) return variant;
  const Manifest manifest = read_manifest(directory);
  variant.criterion = made_by(manifest);
  if (manifest.plan.kept < manifest.plan.experts) variant.ratio = manifest.plan.request.ratio;
  Xxh3 digest;  // of the data as well, unlike that of the model
  const std::string text = InputFile(directory / kManifestName).read_text(kMaxManifestBytes);
  digest.update(std::as_bytes(std::span(text)));
  variant.model_digest = digest.hex();
  return variant;
}

}  // namespace

std::vector<ComparedModel> all_open_compared(const Comm& world, const Source& base,
                                             const std::vector<fs::path>& directories) {
  std::vector<ComparedModel> models;
  for (const fs::path& directory : directories) {
    Source source = all_open_source(world, directory);
    world.all_try([&] {
      const Model &own = source.model, &other = base.model;
      if (own.vocab != other.vocab || own.hidden != other.hidden) {
        fail(ExitCode::bad_input,
             "{}: its vocabulary is {} and its width {}, those of {} are {} and {}: their "
             "predictions cannot be compared",
             directory.string(), own.vocab, own.hidden, base.checkpoint.directory().string(), other.vocab,
             other.hidden);
      }
      EvaluatedVariant variant = described(directory, source, base);
      models.push_back({std::move(source), std::move(variant)});
    });
  }
  return models;
}

}  // namespace reap
