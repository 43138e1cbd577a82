#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "shard/config_reader.hpp"
#include "shard/families.hpp"
#include "shard/model.hpp"

namespace reap {

/// A size that tensor shapes are made of.
enum class Extent : std::uint8_t { none, hidden, vocab, query, key_value, inner, experts };

/// One kind of tensor of a family: its name, with {layer} and {expert} where the numbers stand, and its shape.
struct TensorRule {
  std::string_view name;
  Part part;
  std::array<Extent, 2> shape;  // the second is none for vectors
  // Besides f32, f16 and bf16: f8_e4m3 with a float32 <name>_scale_inv per 128 x 128 block, or 4 bits as w4_tensors().
  bool may_be_fp8 = false;
};

/// A model family, as plain data: what families.cpp holds one record of.
struct Family {
  std::string_view model_type;                    // config.json's
  Model (*describe)(const ConfigReader& config);  // mtp_layers: as many as config.json admits
  std::string_view layer_prefix;                  // what the names of a layer's tensors begin with
  std::span<const TensorRule> tensors;
};

/// The record of a model_type, or null.
const Family* find_family(std::string_view model_type);

constexpr std::string_view kScaleSuffix = "_scale_inv";

/// A tensor name taken apart: its first number is the layer, its second the expert.
struct ParsedName {
  std::string pattern;      // with {layer} and {expert} in place of the numbers, of the weight for scales and pieces
  std::int64_t layer = -1;  // -1 where there is none
  std::int64_t expert = -1;
  bool scale = false;
  W4Piece piece = W4Piece::none;
};

ParsedName parse_tensor_name(std::string_view name);

}  // namespace reap
