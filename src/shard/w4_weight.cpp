#include "shard/w4_weight.hpp"

#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/check.hpp"
#include "kernels/quantize.hpp"

namespace reap {
namespace {

constexpr std::uint32_t kZeros = 0x77777777;  // what GPTQ v1 stores for a zero point of 8, eight times
constexpr std::int64_t kTileRows = 16;        // their words of a row of qweight fill a cache line

template <class T>
std::vector<T> read_as(const Checkpoint& checkpoint, const Tensor& tensor) {
  std::vector<T> values(tensor.bytes / sizeof(T));
  checkpoint.read(tensor, 0, std::as_writable_bytes(std::span(values)));
  return values;
}

/// Where the words and scales of a weight lie: [cols / 8, rows] with GPTQ, [rows, cols / 8] with compressed-tensors.
struct Places {
  std::int64_t word_row, word_col;    // from one row to the next, and from one word of a row to the next
  std::int64_t scale_row, scale_col;  // likewise, scales
};

class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const Model& model, const std::string& name)
      : checkpoint_{checkpoint}, layout_{*model.w4}, name_{name} {}

  ExpandedWeight read() const {
    const Tensor& words = piece(W4Piece::words);
    const bool by_rows = layout_.format == W4Format::compressed_tensors;
    ExpandedWeight weight;
    weight.rows = words.shape[by_rows ? 0 : 1];
    weight.cols = words.shape[by_rows ? 1 : 0] * kNibbles;
    if (!by_rows) check_symmetric(weight.cols);
    const std::int64_t groups = weight.cols / layout_.group;
    const Places places =
        by_rows ? Places{weight.cols / kNibbles, 1, groups, 1} : Places{1, weight.rows, 1, weight.rows};
    weight.values.resize(static_cast<std::size_t>(weight.rows * weight.cols));
    expand(read_as<std::uint32_t>(checkpoint_, words), read_scales(), places, weight);
    return weight;
  }

  const Tensor& piece(W4Piece piece) const { return checkpoint_.at(w4_name(name_, layout_.format, piece)); }

 private:
  std::vector<float> read_scales() const {
    const Tensor& tensor = piece(W4Piece::scales);
    std::vector<float> scales;
    for (const std::uint16_t bits : read_as<std::uint16_t>(checkpoint_, tensor)) {
      scales.push_back(tensor.dtype == DType::bf16 ? to_float(bf16{bits}) : f16_to_float(bits));
    }
    return scales;
  }

  void check_symmetric(std::int64_t cols) const {
    const Tensor& zeros = piece(W4Piece::zeros);
    const std::vector<std::uint32_t> stored = read_as<std::uint32_t>(checkpoint_, zeros);
    if (std::ranges::any_of(stored, [](std::uint32_t word) { return word != kZeros; })) {
      fail(ExitCode::bad_input, "tensor {}: zero points other than 7: the weight is not symmetric", shown(zeros.name));
    }
    const Tensor* const index = checkpoint_.find(w4_name(name_, layout_.format, W4Piece::group_index));
    if (index == nullptr) return;
    const std::vector<std::int32_t> group = read_as<std::int32_t>(checkpoint_, *index);
    for (std::int64_t col = 0; col < cols; ++col) {
      if (group[static_cast<std::size_t>(col)] == col / layout_.group) continue;
      fail(ExitCode::bad_input, "tensor {}: input {} is not in group {}: reordered inputs are not supported",
           shown(index->name), col, col / layout_.group);
    }
  }

  void expand(const std::vector<std::uint32_t>& words, const std::vector<float>& scales, const Places& places,
              ExpandedWeight& weight) const {
    const std::int64_t word_cols = weight.cols / kNibbles;
    for (std::int64_t tile = 0; tile < weight.rows; tile += kTileRows) {
      const std::int64_t end = std::min(tile + kTileRows, weight.rows);
      for (std::int64_t col = 0; col < word_cols; ++col) {
        const std::int64_t group = col * kNibbles / layout_.group;
        for (std::int64_t row = tile; row < end; ++row) {
          const std::uint32_t word = words[static_cast<std::size_t>(row * places.word_row + col * places.word_col)];
          const float scale = scales[static_cast<std::size_t>(row * places.scale_row + group * places.scale_col)];
          float* const to = weight.values.data() + row * weight.cols + col * kNibbles;
          for (int i = 0; i < kNibbles; ++i) {
            to[i] = static_cast<float>(static_cast<int>(word >> (4 * i) & 15U) - 8) * scale;
          }
        }
      }
    }
  }

  const Checkpoint& checkpoint_;
  const W4Layout& layout_;
  const std::string& name_;
};

}  // namespace

bool is_w4(const Checkpoint& checkpoint, const Model& model, const std::string& weight_name) {
  return model.w4 && weight_name.ends_with(kWeightSuffix) &&
         checkpoint.find(w4_name(weight_name, model.w4->format, W4Piece::words)) != nullptr;
}

ExpandedWeight read_w4(const Checkpoint& checkpoint, const Model& model, const std::string& weight_name) {
  return Reader(checkpoint, model, weight_name).read();
}

std::int64_t w4_elements(const Checkpoint& checkpoint, const Model& model, const std::string& weight_name) {
  const Tensor& words = Reader(checkpoint, model, weight_name).piece(W4Piece::words);
  return kNibbles * words.shape[0] * words.shape[1];
}

}  // namespace reap
