#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shard/json.hpp"
#include "shard/safetensors.hpp"

namespace reap {

/// A tensor of a checkpoint: its entry and the file (index into files()) it lies in.
struct Tensor : TensorInfo {
  std::int32_t file;
};

/// A Hugging Face checkpoint directory: config.json and the tensors of model.safetensors.index.json (or of the single
/// model.safetensors). Opening reads every header once and checks it against the index; data are read on demand.
class Checkpoint {
 public:
  /// @throws Error(bad_input) when anything is not as it should be: files outside the directory, index and headers
  ///         disagreeing, a tensor in two files, ...; Error(io) when a file cannot be read
  explicit Checkpoint(const std::filesystem::path& directory);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) = delete;

  const std::filesystem::path& directory() const;
  const std::string& config_text() const;  // config.json, byte for byte
  const Json& config() const;
  /// Safetensors files, names relative to directory(), in ascending order.
  const std::vector<std::string>& files() const;
  /// All tensors, by file, then by offset.
  const std::vector<Tensor>& tensors() const;
  /// The tensor of that name, or null.
  const Tensor* find(std::string_view name) const;
  /// The tensor of that name. @throws Error(bad_input) when there is none.
  const Tensor& at(std::string_view name) const;

  /// Reads bytes [begin, begin + into.size()) of the tensor's data. Safe to call from several threads.
  /// @throws Error(io) on failure or when the file has shrunk
  void read(const Tensor& tensor, std::uint64_t begin, std::span<std::byte> into) const;
  /// The whole tensor.
  std::vector<std::byte> read(const Tensor& tensor) const;

  /// Regular files of the directory that are neither config.json, the index nor safetensors (tokenizer, chat template,
  /// remote code, licence), ascending; a pruned model gets copies of them.
  std::vector<std::string> side_files() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reap
