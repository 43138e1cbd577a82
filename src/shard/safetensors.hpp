#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/dtype.hpp"
#include "shard/input_file.hpp"

namespace reap {

/// One tensor of a safetensors file.
struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t offset;  // of the first byte, from the start of the file
  std::uint64_t bytes;
};

/// The header of one safetensors file, fully checked: at most 100 MB, offsets tile the data exactly and in bounds, no
/// duplicate names, known dtypes, shapes whose byte count does not overflow and agrees with the offsets.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // ascending offset
  std::map<std::string, std::string> metadata;
  std::uint64_t file_bytes;
};

/// @throws Error(bad_input) naming file, tensor and offset; Error(io) when the file cannot be read
SafetensorsHeader read_safetensors_header(const InputFile& file);
SafetensorsHeader read_safetensors_header(const std::filesystem::path& file);

/// The 8-byte length and JSON header (padded to 8 bytes) of a file that holds `tensors` in the given order from the
/// start of its data; their `offset`s are ignored. Metadata is {"format": "pt"}. Canonical: the same tensors give the
/// same bytes.
std::string safetensors_header_text(std::span<const TensorInfo> tensors);

}  // namespace reap
