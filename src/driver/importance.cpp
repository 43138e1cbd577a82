#include "driver/importance.hpp"

#include "driver/hdf5.hpp"
#include "driver/importance_file.hpp"
#include "driver/saliency_importance.hpp"
#include "kernels/check.hpp"
#include "shard/json.hpp"

namespace reap {

void ImportanceSource::check_plan(const Plan&) const {}

std::shared_ptr<const Feedback> ImportanceSource::feedback(std::string_view, std::int64_t) const { return nullptr; }

std::vector<std::int32_t> ImportanceSource::starved(std::int64_t) const { return {}; }

std::unique_ptr<const ImportanceSource> open_importance(const std::filesystem::path& file, const Source& source,
                                                        std::int64_t least_tokens) {
  std::string schema;
  {
    const Hdf5Reader reader(file);
    if (reader.has_attribute("schema")) schema = reader.text("schema");
  }
  if (schema == kImportanceSchema) return std::make_unique<const ImportanceFile>(file);
  if (schema == kSaliencySchema) return std::make_unique<const SaliencyImportance>(file, source, least_tokens);
  fail(ExitCode::bad_input, "{}: its schema is {}; importance is in files of {} or {}", file.string(), shown(schema),
       kImportanceSchema, kSaliencySchema);
}

}  // namespace reap
