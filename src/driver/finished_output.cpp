#include "driver/finished_output.hpp"

#include <fmt/format.h>

#include <system_error>

#include "driver/digest.hpp"
#include "driver/manifest.hpp"
#include "driver/version.hpp"
#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

template <class File>
std::string file_difference(const fs::path& output, const std::vector<File>& files) {
  for (const File& file : files) {
    std::error_code error;
    const std::uintmax_t bytes = fs::file_size(output / file.name, error);
    if (error) return fmt::format("lacks its file {}", shown(file.name));
    if (bytes != file.bytes) return fmt::format("has another size of {} than its manifest says", shown(file.name));
  }
  return "";
}

std::string request_difference(const PlanRequest& a, const PlanRequest& b) {
  if (a.criterion != b.criterion) return fmt::format("was made with --criterion {}", shown(a.criterion));
  if (a.keep != b.keep || (a.keep == 0 && a.ratio != b.ratio)) return "was made with another number of experts";
  if (a.keep_multiple != b.keep_multiple) return fmt::format("was made with --keep-multiple {}", a.keep_multiple);
  if (a.seed != b.seed) return fmt::format("was made with --seed {}", a.seed);
  if (a.preserve_super_experts != b.preserve_super_experts) return "was made with other --preserve-super-experts";
  if (a.domain_weights != without_ones(b.domain_weights)) return "was made with other --domain-weight";
  if (a.protect != b.protect) return "was made with other --protect";
  if (a.allocation != b.allocation) return "was made with another --allocation";
  return "";
}

/// Whether an output is rounded as is asked for; importance that is still to be found can be any.
bool rounded_alike(const Manifest& made, const WriteOptions& options) {
  std::optional<QuantizeOptions> asked = options.quantize;
  if (asked && made.quantize && options.importance_pending) asked->importance = made.quantize->importance;
  return made.quantize == asked;
}

std::string difference(const fs::path& output, const Manifest& manifest, const std::string& source_digest,
                       const PlanRequest& request, const WriteOptions& options) {
  const std::string software = "reap_dist " + release();
  if (manifest.source_digest != source_digest) return "was made from another model";
  if (manifest.software != software) return fmt::format("was made by {}, this is {}", manifest.software, software);
  if (manifest.max_shard_bytes != options.max_shard_bytes) {
    return fmt::format("was made with --max-shard-size {}", manifest.max_shard_bytes);
  }
  if (manifest.mtp != options.mtp) return "was made with another --mtp";
  if (!rounded_alike(manifest, options)) return "was quantised in another way";
  if (manifest.form != options.form) return fmt::format("was made with --form {}", name_of(manifest.form));
  if (const std::string other = request_difference(manifest.plan.request, request); !other.empty()) return other;
  if (const std::string other = file_difference(output, manifest.files); !other.empty()) return other;
  return file_difference(output, manifest.side_files);
}

}  // namespace

std::string output_difference(const fs::path& output, const std::string& source_digest, const PlanRequest& request,
                              const WriteOptions& options) {
  std::error_code error;
  if (!fs::exists(output / kManifestName, error))
    return fmt::format("is not a pruned model: it has no {}", kManifestName);
  try {
    return difference(output, read_manifest(output), source_digest, request, options);
  } catch (const Error& failure) {
    return fmt::format("has a manifest that cannot be used: {}", failure.what());
  }
}

std::string output_difference(const fs::path& output, const std::string& source_digest, const Plan& plan,
                              const WriteOptions& options) {
  const std::string other = output_difference(output, source_digest, plan.request, options);
  if (!other.empty() || read_manifest(output).plan.sha256 == sha256_of(plan_text(plan))) return other;
  return "was made by another plan";
}

}  // namespace reap
