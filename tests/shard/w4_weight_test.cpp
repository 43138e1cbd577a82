// Weights of 4 bits, read back: written here word by word, in all three formats.
#include "shard/w4_weight.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "checkpoint_files.hpp"
#include "shard/families.hpp"

namespace reap {
namespace {

constexpr std::int64_t kRows = 8;
constexpr std::int64_t kCols = 64;
constexpr std::int64_t kGroup = 32;

int level(std::int64_t row, std::int64_t col) { return static_cast<int>((5 * row + 3 * col + col / 7) % 16) - 8; }
float scale(std::int64_t row, std::int64_t group) { return group == 0 ? 0.5f + static_cast<float>(row) : -0.25f; }

/// The f16 of a number of few bits.
std::uint16_t half(float value) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    if (f16_to_float(static_cast<std::uint16_t>(bits)) == value) return static_cast<std::uint16_t>(bits);
  }
  std::abort();
}

/// A model of one layer whose matrices are all the same weight.
class W4Weight : public testing::TestWithParam<W4Format> {
 protected:
  W4Weight() {
    const bool packed = GetParam() == W4Format::compressed_tensors;
    std::vector<std::uint32_t> words(kRows * kCols / 8);
    std::vector<std::uint16_t> scales(kRows * kCols / kGroup);
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t col = 0; col < kCols; ++col) {
        const std::int64_t word = packed ? row * (kCols / 8) + col / 8 : col / 8 * kRows + row;
        words[static_cast<std::size_t>(word)] |= static_cast<std::uint32_t>(level(row, col) + 8) << (col % 8 * 4);
        const std::int64_t group = col / kGroup;
        const std::int64_t place = packed ? row * (kCols / kGroup) + group : group * kRows + row;
        scales[static_cast<std::size_t>(place)] = packed ? to_bf16(scale(row, group)).bits : half(scale(row, group));
      }
    }
    set(W4Piece::words, words);
    set(W4Piece::scales, scales);
    set(W4Piece::zeros, std::vector<std::uint32_t>(kRows / 8 * kCols / kGroup, 0x77777777));
    std::vector<std::int32_t> groups(kCols);
    for (std::size_t col = 0; col < groups.size(); ++col) groups[col] = static_cast<std::int32_t>(col / kGroup);
    set(W4Piece::group_index, groups);
    set(W4Piece::shape, std::vector<std::int64_t>{kRows, kCols});
  }

  template <class T>
  void set(W4Piece piece, const std::vector<T>& values) {
    std::string& data = data_[piece];
    data.assign(values.size() * sizeof(T), '\0');
    std::memcpy(data.data(), values.data(), data.size());
  }

  /// Reads x.weight of a folder with these pieces.
  ExpandedWeight read() {
    std::vector<TensorInfo> tensors;
    std::string all;
    for (const W4Tensor& part : w4_tensors(GetParam(), kRows, kCols, kGroup, DType::bf16)) {
      tensors.push_back({"x." + std::string(part.suffix), part.dtype, part.shape, 0, data_[part.piece].size()});
      all += data_[part.piece];
    }
    write_file(directory_.path() / "config.json", "{}");
    write_file(directory_.path() / "model.safetensors", safetensors_header_text(tensors) + all);
    Model model{};
    model.w4 = W4Layout{GetParam(), kGroup};
    const Checkpoint checkpoint(directory_.path());
    EXPECT_TRUE(is_w4(checkpoint, model, "x.weight"));
    EXPECT_FALSE(is_w4(checkpoint, model, "y.weight"));
    EXPECT_FALSE(is_w4(checkpoint, model, "x.bias"));
    EXPECT_EQ(w4_elements(checkpoint, model, "x.weight"), kRows * kCols);
    return read_w4(checkpoint, model, "x.weight");
  }

  TemporaryDirectory directory_;
  std::map<W4Piece, std::string> data_;
};

std::string format_name(const testing::TestParamInfo<W4Format>& info) {
  std::string name(name_of(info.param));
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Formats, W4Weight,
                         testing::Values(W4Format::auto_round, W4Format::gptq, W4Format::compressed_tensors),
                         format_name);

TEST_P(W4Weight, IsEveryLevelTimesItsScale) {
  const ExpandedWeight weight = read();
  ASSERT_EQ(weight.rows, kRows);
  ASSERT_EQ(weight.cols, kCols);
  for (std::int64_t i = 0; i < kRows * kCols; ++i) {
    const std::int64_t row = i / kCols, col = i % kCols;
    ASSERT_EQ(weight.values[static_cast<std::size_t>(i)],
              static_cast<float>(level(row, col)) * scale(row, col / kGroup))
        << row << ", " << col;
  }
}

TEST_P(W4Weight, RefusesZeroPointsAndReorderedInputs) {
  if (GetParam() == W4Format::compressed_tensors) GTEST_SKIP() << "has neither";
  set(W4Piece::zeros, std::vector<std::uint32_t>{0x77777777, 0x77778777});
  expect_error(ExitCode::bad_input, {"x.qzeros", "not symmetric"}, [&] { read(); });
  set(W4Piece::zeros, std::vector<std::uint32_t>{0x77777777, 0x77777777});
  if (GetParam() != W4Format::gptq) return;
  std::vector<std::int32_t> groups(kCols, 0);
  set(W4Piece::group_index, groups);
  expect_error(ExitCode::bad_input, {"x.g_idx", "input 32 is not in group 1"}, [&] { read(); });
}

constexpr const char* kQuantizations[] = {
    R"({"quant_method": "auto-round", "bits": 4, "sym": true, "data_type": "int", "group_size": 32,
        "packing_format": "auto_round:auto_gptq"})",
    R"({"quant_method": "gptq", "bits": 4, "sym": true, "desc_act": false, "group_size": 32})",
    R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"weights":
        {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}}}})",
};

/// ToyModel with sizes that groups of 32 divide, its experts in 4 bits.
ToyModel toy(W4Format format) {
  ToyModel model;
  model.config = with_member(model.config, "hidden_size", "64");
  model.config = with_member(model.config, "intermediate_size", "32");
  model.config = with_member(model.config, "quantization_config", kQuantizations[static_cast<std::size_t>(format)]);
  std::vector<TensorInfo> tensors;
  for (TensorInfo tensor : model.tensors) {
    for (std::int64_t& size : tensor.shape) size = size == 130 ? 64 : size == 5 ? 32 : size;
    if (tensor.name.find(".experts.") == std::string::npos) {
      tensors.push_back(tensor);
      continue;
    }
    for (const W4Tensor& part : w4_tensors(format, tensor.shape[0], tensor.shape[1], 32, DType::bf16)) {
      tensors.push_back({w4_name(tensor.name, format, part.piece), part.dtype, part.shape, 0, 0});
    }
  }
  model.tensors = tensors;
  return model;
}

std::vector<Claim> claims_of(ToyModel model) {
  const TemporaryDirectory directory;
  model.write(directory.path());
  const Checkpoint checkpoint(directory.path());
  return claim_tensors(checkpoint, describe_model(checkpoint));
}

TEST_P(W4Weight, IsClaimedWithAllItsPieces) {
  const std::string words = w4_name("model.layers.1.block_sparse_moe.experts.2.w2.weight", GetParam(), W4Piece::words);
  const std::string scales =
      w4_name("model.layers.1.block_sparse_moe.experts.2.w2.weight", GetParam(), W4Piece::scales);
  std::size_t pieces = 0;
  for (const Claim& claim : claims_of(toy(GetParam()))) pieces += claim.piece == W4Piece::words ? 1 : 0;
  EXPECT_EQ(pieces, 2U * 3 * 3);
  ToyModel without = toy(GetParam());
  without.remove(scales);
  expect_error(ExitCode::bad_input, {words, "without its", scales}, [&] { claims_of(without); });
  without = toy(GetParam());
  without.remove(words);
  expect_error(ExitCode::bad_input, {"1 tensors", "missing", "experts.2.w2.weight"}, [&] { claims_of(without); });
  ToyModel twice = toy(GetParam());
  twice.add("model.layers.1.block_sparse_moe.experts.2.w2.weight", DType::bf16, {64, 32});
  expect_error(ExitCode::bad_input, {"experts.2.w2.", "takes the place of"}, [&] { claims_of(twice); });
  ToyModel other = toy(GetParam());
  other.at(words).shape = {8, 8};
  expect_error(ExitCode::bad_input, {words, "its shape must be"}, [&] { claims_of(other); });
  ToyModel foreign = toy(GetParam());
  foreign.add("model.layers.1.self_attn.q_proj.qweight2", DType::i32, {8, 40});
  expect_error(ExitCode::bad_input, {"qweight2"}, [&] { claims_of(foreign); });
}

TEST_P(W4Weight, OtherSettingsAreRefused) {
  for (const auto& [from, to, word] : std::vector<std::tuple<std::string, std::string, std::string>>{
           {"\"group_size\": 32", "\"group_size\": 48", "group_size"},
           {GetParam() == W4Format::compressed_tensors ? "\"num_bits\": 4" : "\"bits\": 4",
            GetParam() == W4Format::compressed_tensors ? "\"num_bits\": 8" : "\"bits\": 8", "bits"}}) {
    ToyModel model = toy(GetParam());
    model.config.replace(model.config.find(from), from.size(), to);
    expect_error(ExitCode::bad_input, {"quantization_config", word}, [&] { claims_of(model); });
  }
}

}  // namespace
}  // namespace reap
