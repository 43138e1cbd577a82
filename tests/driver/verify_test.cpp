#include "driver/verify.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "driver/expect_error.hpp"
#include "driver/manifest.hpp"
#include "driver/pruned_models.hpp"
#include "driver/write_checkpoint.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

/// Writes `tensors` over a safetensors file; those that were in it keep their order.
void write_tensors(const fs::path& file, StoredTensors tensors) {
  std::vector<TensorInfo> infos;
  std::string data;
  const auto add = [&](const std::string& name) {
    const StoredTensor& tensor = tensors.at(name);
    infos.push_back({name, *dtype_named(tensor.dtype), tensor.shape, 0, tensor.bytes.size()});
    data += tensor.bytes;
    tensors.erase(name);
  };
  if (fs::exists(file)) {
    for (const TensorInfo& info : read_safetensors_header(file).tensors) {
      if (tensors.contains(info.name)) add(info.name);
    }
  }
  while (!tensors.empty()) add(std::string(tensors.begin()->first));
  write_text(file, safetensors_header_text(infos) + data);
}

std::string expert(int layer, int number, const std::string& part) {
  return fmt::format("model.layers.{}.block_sparse_moe.experts.{}.{}", layer, number, part);
}

/// A pruned model that a test spoils on rank 0, and that verify must find spoilt on every rank.
class Verify : public testing::Test {
 protected:
  explicit Verify(const std::string& name = "m2-mini-fp8", Mtp mtp = Mtp::drop) : source_path_{test_model(name)} {
    const OpenSource source(source_path_);
    plan_ = shuffled_plan(source, source.model.router.experts - 2);
    WriteOptions options;
    options.max_shard_bytes = 200'000;
    options.mtp = mtp;
    all_write_checkpoint(world_, source.checkpoint, source.model, plan_, output_, options);
  }

  VerifyReport verify() { return all_verify(world_, source_path_, output_, {}); }

  /// `words` stand in the error that verify ends with once rank 0 has spoilt the output.
  void expect_found(const std::vector<std::string>& words, const std::function<void()>& spoil) {
    if (world_.rank() == 0) spoil();
    world_.all_barrier();
    expect_error(ExitCode::bad_input, words, [&] { verify(); });
  }

  /// The file that holds the tensor.
  fs::path file_of(const std::string& tensor) const {
    const Json index = parse_json(read_text(output_ / kIndex), kIndex);
    return output_ / index["weight_map"][tensor].get<std::string>();
  }

  /// Lets `edit` change the tensors of the file that holds `tensor`; the index follows when it adds or takes any.
  void edit_tensors(const std::string& tensor, const std::function<void(StoredTensors&)>& edit) const {
    const fs::path file = file_of(tensor);
    StoredTensors tensors = read_tensors(file);
    const std::size_t count = tensors.size();
    edit(tensors);
    write_tensors(file, tensors);
    if (tensors.size() == count) return;
    Json index = parse_json(read_text(output_ / kIndex), kIndex);
    std::int64_t bytes = 0;
    Json weight_map = Json::object();
    for (const auto& entry : fs::directory_iterator(output_)) {
      if (entry.path().extension() != ".safetensors") continue;
      for (const auto& [name, stored] : read_tensors(entry.path())) {
        weight_map[name] = entry.path().filename().string();
        bytes += static_cast<std::int64_t>(stored.bytes.size());
      }
    }
    index["weight_map"] = weight_map;
    index["metadata"]["total_size"] = bytes;
    write_text(output_ / kIndex, index.dump(2));
  }

  void replace(const std::string& file, const std::string& from, const std::string& to) const {
    std::string text = read_text(output_ / file);
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write_text(output_ / file, text.replace(at, from.size(), to));
  }

  Comm world_{MPI_COMM_WORLD};
  SharedDirectory directory_{world_};
  fs::path source_path_;
  fs::path output_ = directory_ / "output";
  Plan plan_;
};

class VerifyMtp : public Verify {
 protected:
  VerifyMtp() : Verify("m2-mini-bf16", Mtp::keep) {}
};

class VerifyNano : public Verify {
 protected:
  VerifyNano() : Verify("m2-nano-fp8") {}
};

TEST_F(Verify, AcceptsWhatTheWriterWrote) {
  const VerifyReport report = verify();
  const StoredTensors tensors = read_all_tensors(output_);
  EXPECT_EQ(report.tensors, static_cast<std::int64_t>(tensors.size()));
  EXPECT_EQ(report.experts, 4);
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += static_cast<std::int64_t>(tensor.bytes.size());
  EXPECT_EQ(report.bytes, bytes);
}

TEST_F(VerifyMtp, AcceptsMtpTensorsThatWereKept) { EXPECT_EQ(verify().experts, 4); }

TEST_F(VerifyNano, AcceptsTheTrainedModel) { EXPECT_EQ(verify().experts, 30); }

TEST_F(Verify, AcceptsFilesOfOthersBesideIt) {
  if (world_.rank() == 0) write_text(output_ / "NOTES.md", "notes");
  world_.all_barrier();
  EXPECT_EQ(verify().experts, 4);
}

// Tensors

TEST_F(Verify, FindsAFlippedBit) {
  const std::string name = expert(1, 2, "w2.weight");
  expect_found({file_of(name).filename(), name, expert(1, plan_.layers[1].keep[2], "w2.weight"), "byte 100"},
               [&] { edit_tensors(name, [&](StoredTensors& tensors) { tensors[name].bytes[100] ^= 0x10; }); });
}

TEST_F(Verify, FindsSwappedExperts) {
  const std::string first = expert(0, 0, "w3.weight");
  expect_found({first, "differs from its source"}, [&] {
    edit_tensors(first, [&](StoredTensors& tensors) { std::swap(tensors[first], tensors[expert(0, 1, "w3.weight")]); });
  });
}

TEST_F(Verify, FindsAMissingTensor) {
  const std::string name = expert(0, 3, "w1.weight_scale_inv");
  expect_found({name}, [&] { edit_tensors(name, [&](StoredTensors& tensors) { tensors.erase(name); }); });
}

TEST_F(Verify, FindsASurplusExpert) {
  const std::string name = expert(0, 4, "w1.weight");
  expect_found({name}, [&] {
    edit_tensors(expert(0, 0, "w1.weight"),
                 [&](StoredTensors& tensors) { tensors[name] = tensors[expert(0, 0, "w1.weight")]; });
  });
}

TEST_F(Verify, FindsASurplusTensor) {
  expect_found({"model.layers.0.mystery"}, [&] {
    edit_tensors("lm_head.weight",
                 [&](StoredTensors& tensors) { tensors["model.layers.0.mystery"] = tensors["lm_head.weight"]; });
  });
}

TEST_F(Verify, FindsABiasThatWasNotSliced) {
  const std::string name = "model.layers.1.block_sparse_moe.e_score_correction_bias";
  expect_found({name, "[6]"}, [&] {
    edit_tensors(name, [&](StoredTensors& tensors) { tensors[name] = read_all_tensors(source_path_).at(name); });
  });
}

TEST_F(Verify, FindsAGateWithTheRowsOfOtherExperts) {
  const std::string name = "model.layers.1.block_sparse_moe.gate.weight";
  expect_found({name, "differs from its source"}, [&] {
    edit_tensors(name, [&](StoredTensors& tensors) {
      std::string& bytes = tensors[name].bytes;  // the rows are right, but the first came last
      std::rotate(bytes.begin(), bytes.begin() + 640, bytes.end());
    });
  });
}

TEST_F(Verify, FindsAGateThatWasConverted) {
  const std::string name = "model.layers.0.block_sparse_moe.gate.weight";
  expect_found({name, "BF16"}, [&] {
    edit_tensors(name, [&](StoredTensors& tensors) {
      tensors[name].dtype = "BF16";
      tensors[name].bytes.resize(tensors[name].bytes.size() / 2);
    });
  });
}

TEST_F(VerifyMtp, FindsAnMtpTensorThatWasLost) {
  const std::string name = "model.layers.2.enorm.weight";
  expect_found({name}, [&] { edit_tensors(name, [&](StoredTensors& tensors) { tensors.erase(name); }); });
}

// Files

TEST_F(Verify, FindsATruncatedFile) {
  const fs::path file = file_of(expert(0, 0, "w1.weight"));
  expect_found({file.filename()}, [&] { fs::resize_file(file, fs::file_size(file) - 1); });
}

TEST_F(Verify, FindsAHeaderThatWasRewritten) {
  const fs::path file = file_of("lm_head.weight");
  expect_found({file.filename(), "sha-256"}, [&] { replace(file.filename(), "\"pt\"", "\"tp\""); });
}

TEST_F(Verify, FindsASurplusFile) {
  expect_found({"model-99999.safetensors", "surplus"}, [&] { write_tensors(output_ / "model-99999.safetensors", {}); });
}

TEST_F(VerifyNano, FindsAnAlteredTokenizer) {
  expect_found({"tokenizer.json", "differs from the source's"}, [&] { replace("tokenizer.json", "a", "b"); });
}

TEST_F(VerifyNano, FindsATokenizerThatIsGone) {
  expect_found({"tokenizer.json"}, [&] { fs::remove(output_ / "tokenizer.json"); });
}

// Config and index

TEST_F(Verify, FindsAnExpertCountThatIsNotTheModels) {
  expect_found({"config.json", "num_local_experts", "is 6", "has to be 4"},
               [&] { replace("config.json", "\"num_local_experts\": 4", "\"num_local_experts\": 6"); });
}

TEST_F(Verify, FindsAConfigKeyThatWasChanged) {
  expect_found({"config.json", "rope_theta", "10000", "50000"},
               [&] { replace("config.json", "\"rope_theta\": 50000", "\"rope_theta\": 10000"); });
}

TEST_F(Verify, FindsAConfigKeyThatIsNew) {
  expect_found({"config.json", "\"new\""},
               [&] { replace("config.json", "\"rope_theta\"", "\"new\": 1, \"rope_theta\""); });
}

TEST_F(Verify, FindsMtpKeysThatPromiseTensors) {
  expect_found({"config.json", "use_mtp"}, [&] { replace("config.json", "\"use_mtp\": false", "\"use_mtp\": true"); });
}

TEST_F(Verify, FindsAWrongTotalSize) {
  expect_found({kIndex, "total_size is 7"}, [&] {
    Json index = parse_json(read_text(output_ / kIndex), kIndex);
    index["metadata"]["total_size"] = 7;
    write_text(output_ / kIndex, index.dump(2));
  });
}

TEST_F(Verify, FindsAnIndexThatPointsElsewhere) {
  expect_found({expert(0, 0, "w1.weight")}, [&] {
    Json index = parse_json(read_text(output_ / kIndex), kIndex);
    index["weight_map"][expert(0, 0, "w1.weight")] = index["weight_map"]["lm_head.weight"];
    write_text(output_ / kIndex, index.dump(2));
  });
}

// Manifest

TEST_F(Verify, NeedsTheManifest) {
  expect_found({kManifestName, "which experts were kept is not known"}, [&] { fs::remove(output_ / kManifestName); });
}

TEST_F(Verify, FindsATensorDigestThatIsWrong) {
  const std::string name = expert(0, 0, "w1.weight");
  expect_found({name, "xxh3-128"}, [&] {
    Manifest manifest = parse_manifest(read_text(output_ / kManifestName), "");
    for (ManifestFile& file : manifest.files) {
      for (ManifestTensor& tensor : file.tensors) {
        if (tensor.name == name) tensor.xxh3 = std::string(32, '0');
      }
    }
    write_text(output_ / kManifestName, manifest_text(manifest));
  });
}

TEST_F(Verify, FindsKeepListsThatAreNotThoseOfTheTensors) {
  expect_found({"differs from its source"}, [&] {
    Manifest manifest = parse_manifest(read_text(output_ / kManifestName), "");
    std::vector<std::int32_t>& keep = manifest.plan.keep[0];  // the lowest dropped expert in place of the lowest kept
    std::int32_t dropped = 0;
    while (std::count(keep.begin(), keep.end(), dropped) > 0) ++dropped;
    keep[0] = dropped;
    std::sort(keep.begin(), keep.end());
    for (ManifestFile& file : manifest.files) {
      for (ManifestTensor& tensor : file.tensors) {
        for (int number = 0; number < 4; ++number) {
          const std::string prefix = expert(0, number, "");
          if (tensor.name.starts_with(prefix)) {
            tensor.source = expert(0, keep[static_cast<std::size_t>(number)], tensor.name.substr(prefix.size()));
          }
        }
      }
    }
    write_text(output_ / kManifestName, manifest_text(manifest));
  });
}

TEST_F(Verify, RefusesFewerExpertsThanATokenNeeds) {
  expect_found({kManifestName, "1 experts are kept", "routed to 2"},
               [&] { replace(kManifestName, "\"kept\":4", "\"kept\":1"); });
}

TEST_F(Verify, RefusesAnotherSource) {
  source_path_ = test_model("m2-mini-bf16");
  expect_found({kManifestName, "another model"}, [] {});
}

TEST_F(Verify, RefusesADirectoryThatIsNoModel) {
  output_ = directory_ / "nothing";
  expect_found({"nothing"}, [] {});
}

}  // namespace
}  // namespace reap
