// Weights with importance from a file, against the package's own output where that is at hand.
#include "driver/quantizer.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "driver/expect_error.hpp"
#include "driver/hdf5.hpp"
#include "driver/importance_file.hpp"
#include "driver/temporary_directory.hpp"
#include "golden.hpp"
#include "npz.hpp"

namespace reap {
namespace {

using Sums = std::map<std::string, std::vector<float>>;

void write_importance(const std::filesystem::path& file, const Sums& layers, const std::string& schema) {
  Hdf5Writer writer;
  writer.group("/importance");
  for (const auto& [layer, sums] : layers) {
    writer.dataset<float>("/importance/" + layer, {static_cast<std::int64_t>(sums.size())}, sums);
  }
  writer.attribute("schema", schema);
  writer.save(file);
}

std::string release_name(std::string layer) {
  for (const auto& [package, release] : std::vector<std::pair<std::string, std::string>>{
           {"gate_proj", "w1"}, {"down_proj", "w2"}, {"up_proj", "w3"}, {".mlp.", ".block_sparse_moe."}}) {
    if (const std::size_t at = layer.find(package); at != std::string::npos) layer.replace(at, package.size(), release);
  }
  return layer;
}

TEST(ImportanceFile, HoldsSumsByLayer) {
  const TemporaryDirectory directory;
  const std::filesystem::path file = directory / "imatrix.h5";
  write_importance(file, {{"a.w1", {1, 2, 3}}, {"a.w2", {0, -1}}}, "reap-imatrix-1");
  const ImportanceFile importance(file);
  EXPECT_EQ(importance.of("a.w1.weight", 3), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(importance.of("a.w3.weight", 3), std::nullopt);
  EXPECT_EQ(importance.digest().size(), 64U);
  expect_error(ExitCode::bad_input, {"a.w1"}, [&] { importance.of("a.w1.weight", 4); });
  expect_error(ExitCode::bad_input, {"a.w2", "negative"}, [&] { importance.of("a.w2.weight", 2); });
  write_importance(file, {}, "something-else");
  expect_error(ExitCode::bad_input, {"imatrix.h5", "something-else"}, [&] { ImportanceFile other(file); });
}

TEST(Quantizer, GivesThePackagesTensorsFromTheFile) {
  const std::filesystem::path goldens = test::shared("goldens/w4a16");
  if (!std::filesystem::exists(goldens)) GTEST_SKIP() << "not here: " << goldens;
  const TemporaryDirectory directory;
  Sums layers;
  for (auto& [layer, sums] : test::read_npz(goldens / "opt-rtn/imatrix.npz")) layers[release_name(layer)] = sums;
  write_importance(directory / "imatrix.h5", layers, "reap-imatrix-1");
  Quantizer quantizer(make_cpu_backend(Compute::bf16, 1, CpuIsa::automatic),
                      std::make_unique<const ImportanceFile>(directory / "imatrix.h5"));
  const Checkpoint source(goldens / "source");
  const Checkpoint written(goldens / "opt-rtn");
  int tensors = 0;
  for (const auto& [layer, piece] : std::vector<std::pair<std::string, W4Piece>>{
           {".qweight", W4Piece::words}, {".qzeros", W4Piece::zeros}, {".scales", W4Piece::scales}}) {
    for (const Tensor& tensor : written.tensors()) {
      if (!tensor.name.ends_with(layer)) continue;
      const std::string name = release_name(tensor.name.substr(0, tensor.name.size() - layer.size())) + ".weight";
      const Derivation how{piece, {Rounding::opt_rtn, 128}, W4Format::auto_round};
      EXPECT_EQ(quantizer.compute(source, source.at(name), how).bytes(piece), written.read(tensor)) << tensor.name;
      ++tensors;
    }
  }
  EXPECT_EQ(tensors, 3 * 136);
}

}  // namespace
}  // namespace reap
