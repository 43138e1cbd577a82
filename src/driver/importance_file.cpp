#include "driver/importance_file.hpp"

#include <algorithm>
#include <cmath>

#include "driver/digest.hpp"
#include "driver/quantize_options.hpp"
#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {}  // namespace

ImportanceFile::ImportanceFile(const std::filesystem::path& file) : reader_{file}, digest_{sha256_of_file(file)} {
  const std::string schema = reader_.has_attribute("schema") ? reader_.text("schema") : "";
  if (schema != kImportanceSchema) {
    fail(ExitCode::bad_input, "{}: is no importance file: its schema is {}, not {}", reader_.file(), shown(schema),
         kImportanceSchema);
  }
}

std::optional<std::vector<float>> ImportanceFile::of(std::string_view weight, std::int64_t inputs) const {
  const std::lock_guard lock(mutex_);
  const std::string path = "/importance/" + std::string(layer_name(weight));
  if (!reader_.has(path)) return std::nullopt;
  std::vector<float> sums = reader_.read<float>(path, {inputs});
  if (std::ranges::any_of(sums, [](float sum) { return !std::isfinite(sum) || sum < 0; })) {
    fail(ExitCode::bad_input, "{}: {}: holds a number that is negative or not finite", reader_.file(), path);
  }
  return sums;
}

}  // namespace reap
