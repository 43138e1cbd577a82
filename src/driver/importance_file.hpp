#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/hdf5.hpp"

namespace reap {

/// The importance of inputs, by linear layer (docs/format/imatrix.md). Several threads may read.
class ImportanceFile {
 public:
  /// @throws Error(bad_input) when it is no such file, Error(io)
  explicit ImportanceFile(const std::filesystem::path& file);

  /// SHA-256 of the file.
  const std::string& digest() const { return digest_; }

  /// Sums of squared activations of a layer's inputs; nothing when the file does not know the layer.
  /// @throws Error(bad_input) when there are not `inputs` finite numbers, none below zero
  std::optional<std::vector<float>> of(std::string_view layer, std::int64_t inputs) const;

 private:
  std::string digest_;
  Hdf5Reader reader_;
  mutable std::mutex mutex_;
};

}  // namespace reap
