#include "shard/w4a16.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/check.hpp"
#include "kernels/quantize.hpp"

namespace reap {
namespace {

constexpr std::array<std::pair<W4Format, std::string_view>, 3> kFormats{{
    {W4Format::auto_round, "auto-round"},
    {W4Format::gptq, "gptq"},
    {W4Format::compressed_tensors, "compressed-tensors"},
}};

struct Suffix {
  std::string_view text;
  W4Piece piece;
  bool packed;  // of compressed-tensors
};
constexpr std::array<Suffix, 7> kSuffixes{{
    {"qweight", W4Piece::words, false},
    {"qzeros", W4Piece::zeros, false},
    {"scales", W4Piece::scales, false},
    {"g_idx", W4Piece::group_index, false},
    {"weight_packed", W4Piece::words, true},
    {"weight_scale", W4Piece::scales, true},
    {"weight_shape", W4Piece::shape, true},
}};

}  // namespace

std::vector<W4Tensor> w4_tensors(W4Format format, std::int64_t rows, std::int64_t cols, std::int64_t group,
                                 DType scale_dtype) {
  const std::int64_t groups = cols / group;
  if (format == W4Format::compressed_tensors) {
    return {{W4Piece::shape, "weight_shape", DType::i64, {2}},
            {W4Piece::words, "weight_packed", DType::i32, {rows, cols / kNibbles}},
            {W4Piece::scales, "weight_scale", scale_dtype, {rows, groups}}};
  }
  std::vector<W4Tensor> tensors{{W4Piece::words, "qweight", DType::i32, {cols / kNibbles, rows}},
                                {W4Piece::zeros, "qzeros", DType::i32, {groups, rows / kNibbles}}};
  if (format == W4Format::gptq) tensors.push_back({W4Piece::group_index, "g_idx", DType::i32, {cols}});
  tensors.push_back({W4Piece::scales, "scales", DType::f16, {groups, rows}});
  return tensors;
}

W4Piece w4_piece_named(std::string_view component) {
  const auto* const found = std::ranges::find(kSuffixes, component, &Suffix::text);
  return found == kSuffixes.end() ? W4Piece::none : found->piece;
}

std::string w4_name(std::string_view weight_name, W4Format format, W4Piece piece) {
  const bool packed = format == W4Format::compressed_tensors;
  const auto* const suffix = std::ranges::find_if(
      kSuffixes, [&](const Suffix& candidate) { return candidate.piece == piece && candidate.packed == packed; });
  REAP_CHECK(suffix != kSuffixes.end() && weight_name.ends_with(kWeightSuffix), "no name of {} for piece {}",
             weight_name, static_cast<int>(piece));
  return std::string(weight_name.substr(0, weight_name.size() - kWeightSuffix.size())) + std::string(suffix->text);
}

std::string_view name_of(W4Format format) { return kFormats[static_cast<std::size_t>(format)].second; }

std::optional<W4Format> w4_format_named(std::string_view name) {
  const auto* const found = std::ranges::find(kFormats, name, &std::pair<W4Format, std::string_view>::second);
  if (found == kFormats.end()) return std::nullopt;
  return found->first;
}

}  // namespace reap
