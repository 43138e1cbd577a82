#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/hdf5.hpp"
#include "driver/importance.hpp"

namespace reap {

constexpr std::string_view kImportanceSchema = "reap-imatrix-1";

/// Importance from a file of its own, by linear layer (docs/format/imatrix.md).
class ImportanceFile final : public ImportanceSource {
 public:
  /// @throws Error(bad_input) when it is no such file, Error(io)
  explicit ImportanceFile(const std::filesystem::path& file);

  const std::string& digest() const override { return digest_; }
  std::optional<std::vector<float>> of(std::string_view weight, std::int64_t inputs) const override;

 private:
  Hdf5Reader reader_;
  std::string digest_;
  mutable std::mutex mutex_;
};

}  // namespace reap
