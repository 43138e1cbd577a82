#include "driver/saliency_file.hpp"

#include <string_view>
#include <vector>

#include "driver/hdf5.hpp"
#include "driver/saliency_parts.hpp"
#include "driver/saliency_tables.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

std::string sums_path(const FieldInfo& field) { return fmt::format("/sums/{}", field.name); }

/// The convenience sums say the same as the digits; where they do not, one of them is damaged.
void check_sums(const Hdf5Reader& file, const FieldTotals& total) {
  for (const FieldInfo& field : kFields) {
    const auto sums = file.read<double>(sums_path(field), {total.layers, total.experts});
    if (sums != total.sum[static_cast<std::size_t>(field.field)]) {
      fail(ExitCode::bad_input, "{}: {} disagrees with /fields/{}: the file is damaged", file.file(), sums_path(field),
           field.name);
    }
  }
}

std::string routing_of(const std::string& plan_digest) {
  return plan_digest.empty() ? "the routing of the whole model" : "the routing of plan " + plan_digest;
}

}  // namespace

std::string difference(const SaliencyInfo& a, const SaliencyInfo& b) {
  if (a.model_digest != b.model_digest) return "another model";
  if (a.calibration_digest != b.calibration_digest) return "other calibration samples";
  if (a.plan_digest != b.plan_digest) return routing_of(a.plan_digest);
  if (a.samples != b.samples || a.tokens != b.tokens) {
    return fmt::format("{} samples of {} tokens", a.samples, a.tokens);
  }
  if (a.block_tokens != b.block_tokens) return fmt::format("--block-tokens {}", a.block_tokens);
  if (a.compute != b.compute) return fmt::format("--compute {}", a.compute);
  if (a.numerics_id != b.numerics_id) return fmt::format("numerics '{}', not '{}'", a.numerics_id, b.numerics_id);
  if (b.collected.gram && !a.collected.gram) return "no gram (--collect)";
  if (b.collected.outputs && !a.collected.outputs) return "no outputs (--collect)";
  if (b.collected.imatrix && !a.collected.imatrix) return "no imatrix (--collect)";
  if (b.collected.moments && !a.collected.moments) return "no moments (--collect)";
  return "";
}

void write_saliency(const std::filesystem::path& path, const SaliencyInfo& info, const Saliency& saliency) {
  write_saliency(path, SaliencyFile{info, saliency});
}

void write_saliency(const std::filesystem::path& path, const SaliencyFile& saliency) {
  const FieldTotals total = totals(saliency.saliency);
  Hdf5Writer file;
  write_info(file, kSaliencySchema, saliency.info);
  write_tables(file, saliency.saliency);
  file.group("/sums");
  for (const FieldInfo& field : kFields) {
    file.dataset<double>(sums_path(field), {total.layers, total.experts},
                         total.sum[static_cast<std::size_t>(field.field)]);
  }
  write_parts(file, saliency);
  file.save(path);
}

SaliencyInfo read_saliency_info(const Hdf5Reader& file) { return read_info(file, kSaliencySchema, "saliency"); }

SaliencyFile read_saliency(const std::filesystem::path& path, const Collected& wanted) {
  const Hdf5Reader file(path);
  SaliencyFile result{read_saliency_info(file), {}};
  result.saliency = read_tables(file, result.info, wanted);
  const std::vector<std::int64_t> tokens(static_cast<std::size_t>(result.saliency.layers), result.info.tokens);
  check_counts(file.file(), result.saliency, result.info.top_k, tokens);
  check_sums(file, totals(result.saliency));
  read_parts(file, result);
  return result;
}

}  // namespace reap
