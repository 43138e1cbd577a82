#include "shard/layer.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/check.hpp"
#include "shard/checkpoint_files.hpp"
#include "shard/families.hpp"

namespace reap {
namespace {

/// What a backend was given to pack.
struct RecordedWeight : Weight {
  std::string data;
  DType dtype{};
  std::int64_t n = 0, k = 0;
  std::vector<float> scale_inv;
  Compute precision{};
  std::int64_t rows() const override { return n; }
  std::int64_t cols() const override { return k; }
  std::int64_t bytes() const override { return static_cast<std::int64_t>(data.size()); }
};

/// Keeps what it is given; computes nothing.
class RecordingBackend : public Backend {
 public:
  Compute compute() const override { return Compute::bf16; }
  std::string numerics_id() const override { return "recording"; }
  const Memory& memory() const override { return host_memory; }
  void upload(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void gather_rows(void*, const void*, const std::int32_t*, std::int64_t, std::int64_t) override { unused(); }
  void zero(void* to, std::size_t bytes) override { std::memset(to, 0, bytes); }
  void synchronize() override {}
  std::unique_ptr<Weight> pack(const WeightSource& source, Compute precision) override {
    auto weight = std::make_unique<RecordedWeight>();
    const std::size_t bytes = static_cast<std::size_t>(source.rows * source.cols) * size_of(source.dtype);
    weight->data.assign(reinterpret_cast<const char*>(source.data), bytes);
    weight->dtype = source.dtype;
    weight->n = source.rows;
    weight->k = source.cols;
    weight->precision = precision;
    const std::int64_t blocks = ((source.rows + 127) / 128) * ((source.cols + 127) / 128);
    if (source.scale_inv != nullptr) weight->scale_inv.assign(source.scale_inv, source.scale_inv + blocks);
    return weight;
  }

  void embed(const void*, DType, std::int64_t, const std::int32_t*, std::int64_t, float*) override { unused(); }
  void rms_norm(const float*, const float*, float, std::int64_t, std::int64_t, float*, void*) override { unused(); }
  void matmul(const void*, std::int64_t, const Weight&, float*, bool) override { unused(); }
  void qk_norm_rope(const float*, const float*, const float*, const float*, const float*, const std::int32_t*,
                    const AttentionShape&, std::int64_t, void*, void*, void*) override {
    unused();
  }
  void attention(const void*, const void*, const void*, std::span<const std::int64_t>, const AttentionShape&,
                 void*) override {
    unused();
  }
  void route(const float*, const Weight&, const float*, std::int64_t, std::int64_t, float*, std::int32_t*,
             float*) override {
    unused();
  }
  void group_slots(const std::int32_t*, std::int64_t, std::int32_t, std::int64_t, std::int32_t*, std::int32_t*,
                   std::int64_t*) override {
    unused();
  }
  void slot_rows(const std::int32_t*, std::int64_t, std::int64_t, std::int32_t*) override { unused(); }
  void experts(const void*, const std::int32_t*, std::span<const std::int64_t>, std::span<const ExpertWeights>, void*,
               float*, float*, const SquareSums&) override {
    unused();
  }
  void combine(const void*, const std::int32_t*, const float*, std::int64_t, std::int64_t, std::int64_t,
               float*) override {
    unused();
  }
  void accumulate(const std::int32_t*, const float*, const float*, const float*, const std::int32_t*,
                  const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t*, float*,
                  std::int64_t*) override {
    unused();
  }
  void accumulate_pairs(const std::int32_t*, const float*, const void*, const std::int32_t*, std::int64_t, std::int64_t,
                        std::int64_t, std::int64_t, std::int64_t*, std::int64_t*) override {
    unused();
  }
  void record_bad_slot(const std::int64_t*, std::int64_t, const std::int32_t*, const float*, const float*,
                       const std::int32_t*, BadSlot*) override {
    unused();
  }
  void accumulate_outputs(const std::int32_t*, const void*, const std::int32_t*, std::int64_t, std::int64_t,
                          std::int64_t, std::int64_t*) override {
    unused();
  }
  void accumulate_squares(const void*, const std::int32_t*, std::span<const std::int64_t>, std::int64_t,
                          const SquareSums&) override {
    unused();
  }
  void accumulate_moments(const void*, std::int64_t, std::int64_t, const MomentSums&) override { unused(); }
  void predict(const float*, const std::int32_t*, std::int64_t, std::int64_t, Prediction*) override { unused(); }
  void diverge(const float*, const Prediction*, const float*, const Prediction*, std::int64_t, std::int64_t,
               Divergence*) override {
    unused();
  }
  void quantize(const WeightSource&, const QuantizeSpec&, const Importance*, std::uint32_t*, std::uint16_t*) override {
    unused();
  }
  void round_with_feedback(const WeightSource&, const QuantizeSpec&, const Feedback&, const std::uint16_t*,
                           std::uint32_t*) override {
    unused();
  }

 private:
  [[noreturn]] static void unused() { fail(ExitCode::bug, "loading computes nothing"); }
};

/// The bytes of a tensor, read from its file by the offset alone.
std::string stored(const Checkpoint& checkpoint, const std::string& name) {
  const Tensor& tensor = checkpoint.at(name);
  return read_file(checkpoint.directory() / checkpoint.files()[tensor.file]).substr(tensor.offset, tensor.bytes);
}

void expect_packed(const Weight* weight, const Checkpoint& checkpoint, const std::string& name, Compute precision) {
  const auto& packed = dynamic_cast<const RecordedWeight&>(*weight);
  const Tensor& tensor = checkpoint.at(name);
  EXPECT_EQ(packed.data, stored(checkpoint, name)) << name;
  EXPECT_EQ(packed.dtype, tensor.dtype) << name;
  EXPECT_EQ((std::vector{packed.n, packed.k}), tensor.shape) << name;
  EXPECT_EQ(packed.precision, precision) << name;
  if (tensor.dtype != DType::f8_e4m3) {
    EXPECT_TRUE(packed.scale_inv.empty()) << name;
    return;
  }
  const std::string scales = stored(checkpoint, name + "_scale_inv");
  ASSERT_EQ(packed.scale_inv.size() * sizeof(float), scales.size()) << name;
  EXPECT_EQ(std::memcmp(packed.scale_inv.data(), scales.data(), scales.size()), 0) << name;
}

void expect_floats(const Buffer<float>& buffer, const Checkpoint& checkpoint, const std::string& name) {
  const Tensor& tensor = checkpoint.at(name);
  const std::string bytes = stored(checkpoint, name);
  ASSERT_EQ(buffer.size(), tensor.shape[0]) << name;
  for (std::size_t i = 0; i < static_cast<std::size_t>(buffer.size()); ++i) {
    float expected = 0;
    std::uint16_t bits = 0;
    if (tensor.dtype == DType::f32) {
      std::memcpy(&expected, bytes.data() + 4 * i, 4);
    } else {
      std::memcpy(&bits, bytes.data() + 2 * i, 2);
      expected = tensor.dtype == DType::bf16 ? to_float(bf16{bits}) : f16_to_float(bits);
    }
    EXPECT_EQ(std::memcmp(buffer.data() + i, &expected, sizeof(float)), 0) << name << " " << i;  // NaNs included
  }
}

void check_layer(const Checkpoint& checkpoint, std::int64_t layer, const Range& experts) {
  const Model model = describe_model(checkpoint);
  RecordingBackend backend;
  const LayerWeights weights = load_layer(checkpoint, model, layer, experts, backend);
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  expect_floats(weights.input_norm, checkpoint, prefix + "input_layernorm.weight");
  expect_floats(weights.post_norm, checkpoint, prefix + "post_attention_layernorm.weight");
  expect_floats(weights.q_norm, checkpoint, prefix + "self_attn.q_norm.weight");
  expect_floats(weights.k_norm, checkpoint, prefix + "self_attn.k_norm.weight");
  expect_floats(weights.gate_bias, checkpoint, prefix + "block_sparse_moe.e_score_correction_bias");
  expect_packed(weights.gate.get(), checkpoint, prefix + "block_sparse_moe.gate.weight", Compute::fp32);
  expect_packed(weights.q.get(), checkpoint, prefix + "self_attn.q_proj.weight", Compute::bf16);
  expect_packed(weights.k.get(), checkpoint, prefix + "self_attn.k_proj.weight", Compute::bf16);
  expect_packed(weights.v.get(), checkpoint, prefix + "self_attn.v_proj.weight", Compute::bf16);
  expect_packed(weights.o.get(), checkpoint, prefix + "self_attn.o_proj.weight", Compute::bf16);
  ASSERT_EQ(static_cast<std::int64_t>(weights.experts.size()), experts.size());
  EXPECT_EQ(weights.w.size(), 3 * weights.experts.size());
  for (std::int64_t expert = experts.begin; expert < experts.end; ++expert) {
    const ExpertWeights& own = weights.experts[static_cast<std::size_t>(expert - experts.begin)];
    const std::string name = prefix + "block_sparse_moe.experts." + std::to_string(expert);
    expect_packed(own.w1, checkpoint, name + ".w1.weight", Compute::bf16);
    expect_packed(own.w3, checkpoint, name + ".w3.weight", Compute::bf16);
    expect_packed(own.w2, checkpoint, name + ".w2.weight", Compute::bf16);
  }
}

TEST(Layer, HoldsTheStoredWeightsOfTheShard) {
  for (const char* name : {"m2-mini-fp8", "m2-mini-bf16"}) {
    const Checkpoint checkpoint(std::filesystem::path(REAP_TEST_DATA) / name);
    check_layer(checkpoint, 0, {0, 6});
    check_layer(checkpoint, 1, {2, 5});
    check_layer(checkpoint, 1, {3, 3});
  }
}

// The toy mixes BF16, F16 and F32, and a tensor of odd length in front leaves all that follow misaligned.
TEST(Layer, MisalignedDataAreCopied) {
  for (const bool fp8 : {false, true}) {
    const TemporaryDirectory directory;
    ToyModel toy(fp8);
    toy.config = with_member(toy.config, "num_mtp_modules", "1");
    toy.tensors.insert(toy.tensors.begin(), {"model.layers.2.odd", DType::u8, {3}, 0, 0});
    toy.write(directory.path());
    const Checkpoint checkpoint(directory.path());
    ASSERT_EQ(checkpoint.at("model.norm.weight").offset % 2, 1u);
    check_layer(checkpoint, 0, {0, 3});
    check_layer(checkpoint, 1, {1, 2});
  }
}

TEST(Layer, BytesCountEverything) {
  const Checkpoint checkpoint(std::filesystem::path(REAP_TEST_DATA) / "m2-mini-bf16");
  RecordingBackend backend;
  const LayerWeights weights = load_layer(checkpoint, describe_model(checkpoint), 0, {1, 3}, backend);
  const std::int64_t norms = 4 * (160 + 160 + 144 + 48 + 6);
  const std::int64_t matrices = 2 * (144 * 160 + 2 * 48 * 160 + 160 * 144) + 4 * 6 * 160;
  EXPECT_EQ(weights.bytes(), norms + matrices + 2 * 3 * 2 * 136 * 160);
}

TEST(Layer, EmbeddingAndHead) {
  const Checkpoint checkpoint(std::filesystem::path(REAP_TEST_DATA) / "m2-mini-fp8");
  const Model model = describe_model(checkpoint);
  RecordingBackend backend;
  const Embedding embedding = load_embedding(checkpoint, model, backend);
  EXPECT_EQ(embedding.dtype, DType::bf16);
  const std::string table = stored(checkpoint, "model.embed_tokens.weight");
  ASSERT_EQ(embedding.table.bytes(), static_cast<std::int64_t>(table.size()));
  EXPECT_EQ(std::memcmp(embedding.table.data(), table.data(), table.size()), 0);
  const Head head = load_head(checkpoint, model, backend);
  expect_floats(head.norm, checkpoint, "model.norm.weight");
  expect_packed(head.projection.get(), checkpoint, "lm_head.weight", Compute::bf16);
}

// A rank that holds one expert must not touch the bytes of the others: cut a file off behind its last own byte.
TEST(Layer, ReadsOnlyTheShardsExperts) {
  const TemporaryDirectory directory;
  ToyModel toy;
  toy.write(directory.path());
  const Checkpoint checkpoint(directory.path());
  const Model model = describe_model(checkpoint);
  const Tensor& next = checkpoint.at("model.layers.1.block_sparse_moe.experts.1.w1.weight");
  std::filesystem::resize_file(directory.path() / "model.safetensors", next.offset);
  RecordingBackend backend;
  EXPECT_NO_THROW(load_layer(checkpoint, model, 1, {0, 1}, backend));
  expect_error(ExitCode::io, {"model.safetensors", "shrunk"}, [&] {
    load_layer(checkpoint, model, 1, {0, 2}, backend);
  });
}

}  // namespace
}  // namespace reap
