// 4-bit weights against the package's own output, bit for bit, and against its formulas in torch.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "golden.hpp"
#include "kernels/backends.hpp"
#include "npz.hpp"
#include "shard/checkpoint.hpp"

namespace reap {
namespace {

using QuantizeGolden = test::BackendTest;
REAP_TEST_ON_BACKENDS(QuantizeGolden);

struct Quantised {
  std::vector<std::uint32_t> words;   // [rows, cols / 8]
  std::vector<std::uint16_t> scales;  // [rows, groups]
  bool operator==(const Quantised&) const = default;
};

template <class T>
std::vector<T> values_of(const Checkpoint& checkpoint, const std::string& name) {
  const std::vector<std::byte> bytes = checkpoint.read(checkpoint.at(name));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

template <class T>
std::vector<T> transposed(const std::vector<T>& from, std::size_t rows) {
  std::vector<T> to(from.size());
  const std::size_t cols = from.size() / rows;
  for (std::size_t i = 0; i < from.size(); ++i) to[i % cols * rows + i / cols] = from[i];
  return to;
}

Quantised quantise(Backend& backend, const Checkpoint& source, const std::string& name, const QuantizeSpec& spec,
                   const std::vector<float>* importance) {
  const Tensor& tensor = source.at(name);
  const std::vector<std::byte> bytes = source.read(tensor);
  const std::int64_t rows = tensor.shape[0], cols = tensor.shape[1];
  Importance effective;
  if (importance != nullptr) effective = effective_importance(importance->data(), cols, spec.group);
  Quantised result{std::vector<std::uint32_t>(static_cast<std::size_t>(rows * cols / kNibbles)),
                   std::vector<std::uint16_t>(static_cast<std::size_t>(rows * cols / spec.group))};
  backend.quantize({bytes.data(), tensor.dtype, rows, cols, nullptr}, spec,
                   importance != nullptr ? &effective : nullptr, result.words.data(), result.scales.data());
  return result;
}

TEST_P(QuantizeGolden, GivesTheBundledBits) {
  const Checkpoint golden(test::data("w4a16"));
  int cases = 0;
  for (const Tensor& tensor : golden.tensors()) {
    if (!tensor.name.ends_with("/weight")) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - std::strlen("/weight"));  // type.group.method
    const std::size_t group = name.find('.') + 1;
    const QuantizeSpec spec{name.ends_with(".rtn") ? Rounding::rtn : Rounding::opt_rtn,
                            std::stoll(name.substr(group, name.find('.', group) - group))};
    std::vector<float> importance;
    const bool has_importance = golden.find(name + "/importance") != nullptr;
    if (has_importance) importance = values_of<float>(golden, name + "/importance");
    const Quantised got = quantise(*backend, golden, tensor.name, spec, has_importance ? &importance : nullptr);
    EXPECT_EQ(got.scales, values_of<std::uint16_t>(golden, name + "/scales")) << name;
    EXPECT_EQ(got.words, values_of<std::uint32_t>(golden, name + "/words")) << name;
    ++cases;
  }
  EXPECT_EQ(cases, 31);
}

/// The release's name of a layer that the package has renamed.
std::string release_name(std::string layer) {
  for (const auto& [package, release] : std::vector<std::pair<std::string, std::string>>{
           {"gate_proj", "w1"}, {"down_proj", "w2"}, {"up_proj", "w3"}, {".mlp.", ".block_sparse_moe."}}) {
    if (const std::size_t at = layer.find(package); at != std::string::npos) layer.replace(at, package.size(), release);
  }
  return layer + ".weight";
}

TEST_P(QuantizeGolden, GivesThePackagesBits) {
  const std::filesystem::path goldens = test::shared("goldens/w4a16");
  if (!std::filesystem::exists(goldens)) GTEST_SKIP() << "not here: " << goldens;
  const Checkpoint source(goldens / "source");
  for (const std::string mode : {"rtn", "opt-rtn", "default"}) {
    const Checkpoint written(goldens / mode);
    const bool searched = mode != "rtn";
    std::map<std::string, std::vector<float>> importance;
    if (searched) importance = test::read_npz(goldens / mode / "imatrix.npz");
    int tensors = 0;
    for (const Tensor& tensor : written.tensors()) {
      if (!tensor.name.ends_with(".qweight")) continue;
      const std::string layer = tensor.name.substr(0, tensor.name.size() - std::strlen(".qweight"));
      const bool search = mode == "opt-rtn" || (mode == "default" && layer.find(".self_attn.") != std::string::npos);
      const QuantizeSpec spec{search ? Rounding::opt_rtn : Rounding::rtn, 128};
      const Quantised got =
          quantise(*backend, source, release_name(layer), spec, search ? &importance.at(layer) : nullptr);
      const auto rows = static_cast<std::size_t>(source.at(release_name(layer)).shape[0]);
      EXPECT_EQ(transposed(got.words, rows), values_of<std::uint32_t>(written, tensor.name)) << mode << " " << layer;
      EXPECT_EQ(transposed(got.scales, rows), values_of<std::uint16_t>(written, layer + ".scales")) << mode << layer;
      ++tensors;
    }
    EXPECT_EQ(tensors, 136);
  }
}

}  // namespace
}  // namespace reap
