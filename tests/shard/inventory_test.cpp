#include "shard/inventory.hpp"

#include <gtest/gtest.h>

#include "kernels/error.hpp"
#include "shard/checkpoint_files.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

const fs::path kData = REAP_TEST_DATA;

// What the 230B release says of itself, as far as sizes follow from it.
constexpr const char* kPublishedConfig =
    R"({"head_dim": 128, "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 1536, "model_type": "minimax_m2",
    "mtp_transformer_layers": 1, "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 62,
    "num_key_value_heads": 8, "num_local_experts": 256, "num_mtp_modules": 3, "qk_norm_type": "per_layer",
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8",
    "weight_block_size": [128, 128]}, "rms_norm_eps": 1e-06, "rope_theta": 5000000, "rotary_dim": 64,
    "scoring_func": "sigmoid", "shared_intermediate_size": 0, "tie_word_embeddings": false, "use_mtp": true,
    "use_qk_norm": true, "use_routing_bias": true, "vocab_size": 200064})";

/// A folder with a config.json, and whatever a test adds.
class FolderOfAModel : public testing::Test {
 protected:
  void write(const char* name, const std::string& text) const { write_file(path() / name, text); }
  const fs::path& path() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
};

TEST_F(FolderOfAModel, PublishedConfigAlone) {
  write("config.json", kPublishedConfig);
  const ModelFolder folder = open_model_folder(path());
  EXPECT_FALSE(folder.from_headers);
  EXPECT_NE(folder.note.find("config.json"), std::string::npos);
  EXPECT_TRUE(folder.model.fp8);

  const Stock whole = folder.inventory.whole();
  EXPECT_EQ(whole.tensors, 96'103);  // of the release, 47,864 of them scales
  EXPECT_NEAR(static_cast<double>(whole.parameters), 228.7e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(whole.bytes), 230e9, 0.5e9);
  for (const auto& [kept, billions] : {std::pair{192, 172.5}, {180, 162.0}, {154, 139.2}, {128, 116.3}}) {
    EXPECT_NEAR(static_cast<double>(folder.inventory.left(kept).parameters) / 1e9, billions, 0.06) << kept;
  }
  // By hand: 62 layers of q, o of 6144, k, v of 1024, 4 norms, 256 experts with a row of the router and a bias each.
  const std::int64_t layer = 2 * 3072 * (6144 + 1024) + 2 * 3072 + 6144 + 1024 + 256LL * (3 * 3072 * 1536 + 3072 + 1);
  EXPECT_EQ(whole.parameters, 62 * layer + 2 * 200'064LL * 3072 + 3072);
}

TEST(Inventory, ConfigAndHeadersAgree) {
  for (const char* name : {"m2-nano-fp8", "m2-mini-fp8", "m2-mini-bf16"}) {
    const Checkpoint checkpoint(kData / name);
    const Model model = describe_model(checkpoint);
    const Inventory headers = count_tensors(checkpoint, model, claim_tensors(checkpoint, model));
    const Inventory config = count_tensors(describe_config(checkpoint.config(), name));
    std::int64_t bytes = 0;
    for (const Tensor& tensor : checkpoint.tensors()) bytes += static_cast<std::int64_t>(tensor.bytes);
    EXPECT_EQ(headers.whole().bytes, bytes) << name;
    EXPECT_EQ(headers.whole().tensors, static_cast<std::int64_t>(checkpoint.tensors().size())) << name;
    for (const std::int64_t kept : {model.router.top_k, model.router.experts}) {
      EXPECT_EQ(headers.left(kept).tensors, config.left(kept).tensors) << name;
      EXPECT_EQ(headers.left(kept).parameters, config.left(kept).parameters) << name;
      EXPECT_EQ(headers.left(kept).bytes, config.left(kept).bytes) << name;
    }
    EXPECT_EQ(headers.mtp.tensors > 0, model.mtp_layers > 0) << name;
  }
}

TEST_F(FolderOfAModel, IndexWithoutItsFiles) {
  for (const char* name : {"config.json", "model.safetensors.index.json"}) {
    fs::copy_file(kData / "m2-mini-fp8" / name, path() / name);
  }
  const Inventory known = open_model_folder(kData / "m2-mini-fp8").inventory;
  const ModelFolder folder = open_model_folder(path());
  EXPECT_FALSE(folder.from_headers);
  EXPECT_NE(folder.note.find("8 of the 8 files"), std::string::npos) << folder.note;
  EXPECT_EQ(folder.note.find("describes"), std::string::npos) << folder.note;
  EXPECT_EQ(folder.inventory.whole().tensors, known.whole().tensors);
  EXPECT_EQ(folder.inventory.left(4).bytes, known.left(4).bytes);
  EXPECT_EQ(folder.inventory.mtp.bytes, known.mtp.bytes) << "what the index's total leaves";
  EXPECT_TRUE(open_model_folder(kData / "m2-mini-fp8").from_headers);
}

TEST_F(FolderOfAModel, RefusesWhatIsNoModel) {
  const auto error = [&] {
    try {
      open_model_folder(path());
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::bad_input);
      return std::string(e.what());
    }
    return std::string("nothing thrown");
  };
  EXPECT_NE(error().find("config.json"), std::string::npos);
  write("config.json", R"({"model_type": "other"})");
  EXPECT_NE(error().find("model_type"), std::string::npos);
  std::string huge = kPublishedConfig;
  for (const auto& [from, to] : {std::pair{"\"hidden_size\": 3072", "\"hidden_size\": 1048576"},
                                 {"\"intermediate_size\": 1536", "\"intermediate_size\": 1048576"},
                                 {"\"num_local_experts\": 256", "\"num_local_experts\": 65536"},
                                 {"\"num_hidden_layers\": 62", "\"num_hidden_layers\": 65536"}}) {
    huge.replace(huge.find(from), std::string(from).size(), to);
  }
  write("config.json", huge);
  EXPECT_NE(error().find("wrong size"), std::string::npos) << error();
  write("config.json", kPublishedConfig);
  write("model.safetensors.index.json", R"({"weight_map": {"model.norm.weight": 1}})");
  EXPECT_NE(error().find("not the name of a file"), std::string::npos) << error();
}

}  // namespace
}  // namespace reap
