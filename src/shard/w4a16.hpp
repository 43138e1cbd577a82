#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.hpp"

namespace reap {

/// How checkpoints hold weights of 4 bits (docs/format/w4a16.md).
enum class W4Format : std::uint8_t {
  auto_round,          // GPTQ v1 without g_idx
  gptq,                // with it
  compressed_tensors,  // pack-quantized
};

/// The tensors that one weight is held in; `none`: it is one tensor, as ever.
enum class W4Piece : std::uint8_t { none, words, zeros, scales, group_index, shape };

/// One of them, for a weight [rows, cols] in groups of consecutive inputs.
struct W4Tensor {
  W4Piece piece;
  std::string_view suffix;  // takes the place of "weight" in its name
  DType dtype;
  std::vector<std::int64_t> shape;
};

/// All of them, the widest element type first.
/// @param scale_dtype  of compressed-tensors' scales: bf16, or f16 where a scale may need its 11 bits
std::vector<W4Tensor> w4_tensors(W4Format format, std::int64_t rows, std::int64_t cols, std::int64_t group,
                                 DType scale_dtype);

/// Which of them a name's last component stands for, in any format.
W4Piece w4_piece_named(std::string_view component);

/// The name of a piece of the weight `weight_name`.
std::string w4_name(std::string_view weight_name, W4Format format, W4Piece piece);

/// "auto-round", "gptq", "compressed-tensors".
std::string_view name_of(W4Format format);
std::optional<W4Format> w4_format_named(std::string_view name);

constexpr std::string_view kWeightSuffix = "weight";

}  // namespace reap
