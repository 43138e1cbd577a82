// One MiniMax-M2 layer at its real dimensions on a GPU, operation by operation, with random weights in BF16 and in FP8.
//
//   cuda_bench [seconds per line]
//
// Times are medians between CUDA events. "share" is that of a large cuBLAS product in bf16 or of a copy on the device,
// bytes read and written, whichever bounds the operation; both are measured in the same run. The last line is JSON.

#include <cublas_v2.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/expert_product.hpp"
#include "kernels/cuda/memory_cache.hpp"
#include "kernels/cuda/ops.hpp"
#include "kernels/cuda/products.hpp"
#include "kernels/round_up.hpp"

namespace {

using namespace reap;
using namespace reap::cuda;

constexpr std::int64_t kHidden = 3072, kInner = 1536, kExperts = 256, kTopK = 8;
constexpr AttentionShape kShape{48, 8, 128, 64, 5e6, 1e-6f};
constexpr std::int64_t kQ = kShape.heads * kShape.head_dim, kKv = kShape.kv_heads * kShape.head_dim;
constexpr std::int64_t kSample = 2048;  // tokens

struct Result {
  std::string operation;
  double seconds;
  const char* unit;  // of `amount`: flop or byte
  double amount;
  double share;
};

/// The device, and what its operations run with.
class Device {
 public:
  Device() : scratch_{device_memory(0)}, slabs{device_memory(0)}, products{device_memory(0)} {
    REAP_CUDA(cudaGetDeviceProperties(&properties, 0));
    REAP_CUDA(cudaStreamCreate(&stream));
    memory_cache(0).add_stream(stream);
    for (cudaEvent_t* event : {&begin_, &end_}) REAP_CUDA(cudaEventCreate(event));
  }
  Launch launch() {
    scratch_.reset();
    const DeviceInfo info{0, properties.major * 10 + properties.minor, properties.multiProcessorCount,
                          properties.sharedMemPerBlockOptin};
    return {stream, Compute::bf16, info, &scratch_, &staging_};
  }
  /// The median time of `work` on the stream, over at least five runs and `seconds`.
  double measure(double seconds, const std::function<void()>& work) {
    for (int warm_up = 0; warm_up < 2; ++warm_up) work();
    std::vector<double> times;
    for (double spent = 0; times.size() < 5 || spent < seconds; spent += times.back()) {
      REAP_CUDA(cudaEventRecord(begin_, stream));
      work();
      REAP_CUDA(cudaEventRecord(end_, stream));
      REAP_CUDA(cudaEventSynchronize(end_));
      float milliseconds = 0;
      REAP_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
      times.push_back(milliseconds * 1e-3);
    }
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
  }
  template <class T>
  Buffer<T> buffer(std::int64_t count) {
    return Buffer<T>(device_memory(0), count);
  }
  template <class T>
  void upload(const Buffer<T>& to, const std::vector<T>& from) {
    staging_.upload(stream, to.data(), from.data(), from.size() * sizeof(T));
  }
  template <class T>
  std::vector<T> download(const Buffer<T>& from) {
    std::vector<T> to(static_cast<std::size_t>(from.size()));
    staging_.download(stream, to.data(), from.data(), to.size() * sizeof(T));
    staging_.finish(stream);
    return to;
  }

  cudaDeviceProp properties{};
  cudaStream_t stream = nullptr;

 private:
  Scratch scratch_;
  Staging staging_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;

 public:
  Slabs slabs;
  Products products;
};

/// Normal values; a long period of them over and over is as good as all different, and is there at once.
std::vector<float> random_values(std::int64_t count, float deviation) {
  static const std::vector<float> period = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(1'000'003);
    for (float& value : values) value = normal(random);
    return values;
  }();
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = deviation * period[i % period.size()];
  return values;
}

std::vector<std::uint16_t> random_bf16(std::int64_t count, float deviation) {
  std::vector<std::uint16_t> bits;
  for (const float value : random_values(count, deviation)) bits.push_back(to_bf16(value).bits);
  return bits;
}

/// A weight of a checkpoint's type in host memory, of unit variance over the square root of its inputs. For FP8 any
/// finite codes: what they stand for matters little.
class HostWeight {
 public:
  HostWeight(DType dtype, std::int64_t rows, std::int64_t cols)
      : dtype_{dtype},
        rows_{rows},
        cols_{cols},
        deviation_{1.0f / std::sqrt(static_cast<float>(cols))},
        bytes_(static_cast<std::size_t>(rows * cols) * size_of(dtype)),
        scales_(static_cast<std::size_t>(ceil_div(rows, kScaleBlock) * ceil_div(cols, kScaleBlock)), deviation_ / 64) {
    const std::vector<float> values = random_values(rows * cols, deviation_);
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &values[i], sizeof bits);
      if (dtype == DType::bf16) bits = to_bf16(values[i]).bits;
      if (dtype == DType::f8_e4m3) bits = bits % 0x70 | (bits >> 24 & 0x80);
      std::memcpy(bytes_.data() + i * size_of(dtype), &bits, size_of(dtype));
    }
  }
  std::unique_ptr<Weight> pack(Device& device) const {
    const WeightSource source{bytes_.data(), dtype_, rows_, cols_, dtype_ == DType::f8_e4m3 ? scales_.data() : nullptr};
    const Compute precision = dtype_ == DType::f32 ? Compute::fp32 : Compute::bf16;
    return std::make_unique<CudaWeight>(device.launch(), device.slabs, source, precision);
  }

 private:
  DType dtype_;
  std::int64_t rows_, cols_;
  float deviation_;
  std::vector<std::byte> bytes_;
  std::vector<float> scales_;
};

/// A layer's weights. The experts hold equal values in memory of their own.
struct LayerWeights {
  LayerWeights(Device& device, DType stored)
      : q{HostWeight(stored, kQ, kHidden).pack(device)},
        k{HostWeight(stored, kKv, kHidden).pack(device)},
        v{HostWeight(stored, kKv, kHidden).pack(device)},
        o{HostWeight(stored, kHidden, kQ).pack(device)},
        gate{HostWeight(DType::f32, kExperts, kHidden).pack(device)} {
    const HostWeight up(stored, kInner, kHidden), down(stored, kHidden, kInner);
    for (std::int64_t e = 0; e < kExperts; ++e) {
      for (const HostWeight* weight : {&up, &up, &down}) owned.push_back(weight->pack(device));
      experts.push_back({owned.end()[-3].get(), owned.end()[-2].get(), owned.end()[-1].get()});
    }
  }
  std::unique_ptr<Weight> q, k, v, o, gate;
  std::vector<std::unique_ptr<Weight>> owned;
  std::vector<ExpertWeights> experts;
};

/// All that a layer's operations read and write.
class Layer {
 public:
  Layer(Device& device, const LayerWeights& weights, std::int64_t tokens)
      : device_{device}, weights_{weights}, tokens_{tokens} {
    device.upload(x_, random_values(tokens * kHidden, 1));
    device.upload(norm_weight_, std::vector<float>(static_cast<std::size_t>(kQ), 1.0f));
    device.upload(bias_, std::vector<float>(static_cast<std::size_t>(kExperts), 0.0f));
    device.upload(group_, std::vector<std::int32_t>(static_cast<std::size_t>(tokens), 0));
    std::vector<std::int32_t> position;
    for (std::int64_t t = 0; t < tokens; ++t) position.push_back(static_cast<std::int32_t>(t % kSample));
    device.upload(token_position_, position);
    for (std::int64_t t = 0; t <= tokens; t += kSample) sample_start_.push_back(t);
    REAP_CUDA(cudaMemsetAsync(sums_.data(), 0, static_cast<std::size_t>(sums_.bytes()), device.stream));
    REAP_CUDA(cudaMemsetAsync(highest_.data(), 0, static_cast<std::size_t>(highest_.bytes()), device.stream));
    norm();
    project();
    rope();
    attend();
    add_attention();
    norm_again();
    choose();
    group();
  }

  void norm() {
    rms_norm(device_.launch(), x_.data(), norm_weight_.data(), 1e-6f, tokens_, kHidden, nullptr, h_.data());
  }
  void project() {
    device_.products.multiply(device_.launch(), h_.data(), tokens_, on_device(*weights_.q), q_.data(), false);
    device_.products.multiply(device_.launch(), h_.data(), tokens_, on_device(*weights_.k), k_.data(), false);
    device_.products.multiply(device_.launch(), h_.data(), tokens_, on_device(*weights_.v), v_.data(), false);
  }
  void rope() {
    qk_norm_rope(device_.launch(), q_.data(), k_.data(), v_.data(), norm_weight_.data(), norm_weight_.data(),
                 token_position_.data(), kShape, tokens_, q_act_.data(), k_act_.data(), v_act_.data());
  }
  void attend() {
    attention(device_.launch(), q_act_.data(), k_act_.data(), v_act_.data(), sample_start_, kShape, attended_.data());
  }
  void add_attention() {
    device_.products.multiply(device_.launch(), attended_.data(), tokens_, on_device(*weights_.o), x_.data(), true);
  }
  void norm_again() {
    rms_norm(device_.launch(), x_.data(), norm_weight_.data(), 1e-6f, tokens_, kHidden, h32_.data(), h_.data());
  }
  void choose() {
    const Launch launch = device_.launch();
    device_.products.multiply(launch, h32_.data(), tokens_, on_device(*weights_.gate), logits_.data(), false);
    select_experts(launch, logits_.data(), bias_.data(), tokens_, kExperts, kTopK, expert_.data(), gate_value_.data());
  }
  void group() {
    group_slots(device_.launch(), expert_.data(), slots(), 0, kExperts, order_.data(), place_.data(), start_.data());
    slot_rows(device_.launch(), order_.data(), slots(), kTopK, row_.data());
  }
  void multiply_experts(ExpertKernels kernels) {
    experts(device_.launch(), h_.data(), row_.data(), start_, weights_.experts, f_.data(), f_norm_.data(),
            f_highest_.data(), {}, kernels);
  }
  void add_experts() {
    combine(device_.launch(), f_.data(), place_.data(), gate_value_.data(), tokens_, kTopK, kHidden, x_.data());
  }
  void add_sums() {
    accumulate(device_.launch(), expert_.data(), gate_value_.data(), f_norm_.data(), f_highest_.data(), place_.data(),
               group_.data(), tokens_, kTopK, kExperts, sums_.data(), highest_.data(), bad_slot_.data());
  }
  void all() {
    norm();
    project();
    rope();
    attend();
    add_attention();
    norm_again();
    choose();
    group();
    multiply_experts(ExpertKernels::automatic);
    add_experts();
    add_sums();
  }
  std::int64_t slots() const { return tokens_ * kTopK; }
  /// Of the experts' outputs.
  std::vector<float> norms() { return device_.download(f_norm_); }

 private:
  Device& device_;
  const LayerWeights& weights_;
  std::int64_t tokens_;
  std::vector<std::int64_t> sample_start_;
  std::vector<std::int64_t> start_ = std::vector<std::int64_t>(static_cast<std::size_t>(kExperts) + 1);
  Buffer<float> x_ = device_.buffer<float>(tokens_ * kHidden), h32_ = device_.buffer<float>(tokens_ * kHidden);
  Buffer<bf16> h_ = device_.buffer<bf16>(tokens_ * kHidden);
  Buffer<float> q_ = device_.buffer<float>(tokens_ * kQ), k_ = device_.buffer<float>(tokens_ * kKv),
                v_ = device_.buffer<float>(tokens_ * kKv);
  Buffer<bf16> q_act_ = device_.buffer<bf16>(tokens_ * kQ), k_act_ = device_.buffer<bf16>(tokens_ * kKv),
               v_act_ = device_.buffer<bf16>(tokens_ * kKv), attended_ = device_.buffer<bf16>(tokens_ * kQ);
  Buffer<float> norm_weight_ = device_.buffer<float>(kQ), bias_ = device_.buffer<float>(kExperts);
  Buffer<std::int32_t> token_position_ = device_.buffer<std::int32_t>(tokens_),
                       group_ = device_.buffer<std::int32_t>(tokens_);
  Buffer<float> logits_ = device_.buffer<float>(tokens_ * kExperts), gate_value_ = device_.buffer<float>(slots());
  Buffer<std::int32_t> expert_ = device_.buffer<std::int32_t>(slots()), order_ = device_.buffer<std::int32_t>(slots()),
                       place_ = device_.buffer<std::int32_t>(slots()), row_ = device_.buffer<std::int32_t>(slots());
  Buffer<bf16> f_ = device_.buffer<bf16>(slots() * kHidden);
  Buffer<float> f_norm_ = device_.buffer<float>(slots()), f_highest_ = device_.buffer<float>(slots());
  Buffer<std::int64_t> sums_ = device_.buffer<std::int64_t>(kExperts * kSumsPerExpert),
                       bad_slot_ = device_.buffer<std::int64_t>(1);
  Buffer<float> highest_ = device_.buffer<float>(kExperts);
};

/// What no operation runs faster than.
struct Ceilings {
  double product;  // operations per second
  double copy;     // bytes per second
};

Ceilings measure_ceilings(Device& device, double seconds) {
  constexpr int kSide = 8192;
  const auto a = device.buffer<std::uint16_t>(std::int64_t{kSide} * kSide), b = device.buffer<std::uint16_t>(a.size()),
             c = device.buffer<std::uint16_t>(a.size());
  device.upload(a, random_bf16(a.size(), 1));
  device.upload(b, random_bf16(a.size(), 1));
  cublasHandle_t handle = nullptr;
  REAP_CUDA_REQUIRE(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate failed");
  cublasSetStream(handle, device.stream);
  const float one = 1, nil = 0;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  const double product = device.measure(seconds, [&] {
    status = cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, kSide, kSide, kSide, &one, a.data(), CUDA_R_16BF, kSide,
                          b.data(), CUDA_R_16BF, kSide, &nil, c.data(), CUDA_R_16BF, kSide, CUBLAS_COMPUTE_32F,
                          CUBLAS_GEMM_DEFAULT);
  });
  REAP_CUDA_REQUIRE(status == CUBLAS_STATUS_SUCCESS, "cublasGemmEx failed");
  cublasDestroy(handle);
  constexpr std::int64_t kBytes = std::int64_t{2} << 30;
  const auto from = device.buffer<std::byte>(kBytes), to = device.buffer<std::byte>(kBytes);
  const double copy = device.measure(seconds, [&] {
    REAP_CUDA(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, device.stream));
  });
  return {2.0 * kSide * kSide * kSide / product, 2.0 * kBytes / copy};
}

/// Times every operation of a layer and prints them.
class LayerBench {
 public:
  LayerBench(Device& device, const Ceilings& ceilings, double seconds)
      : device_{device}, ceilings_{ceilings}, seconds_{seconds} {}

  std::vector<Result> run(const LayerWeights& weights, std::int64_t tokens) {
    Layer layer(device_, weights, tokens);
    const auto rows = static_cast<double>(tokens), slots = static_cast<double>(layer.slots());
    const double hidden = kHidden, act = 2, wide = 4, expert_work = 6 * slots * hidden * kInner;
    const double attention_work = 2.0 * kQ * static_cast<double>(kSample + 1) * rows;
    const double projected = static_cast<double>(kQ + 2 * kKv);
    bytes("rms_norm", rows * hidden * (wide + act), [&] { layer.norm(); });
    products("q, k, v", 2 * rows * hidden * projected, [&] { layer.project(); });
    bytes("qk_norm_rope", rows * projected * (wide + act), [&] { layer.rope(); });
    products("attention", attention_work, [&] { layer.attend(); });
    products("o", 2 * rows * hidden * kQ, [&] { layer.add_attention(); });
    bytes("rms_norm, both outputs", rows * hidden * (2 * wide + act), [&] { layer.norm_again(); });
    bytes("route", rows * (hidden + 2 * kExperts) * wide, [&] { layer.choose(); });
    bytes("group_slots", slots * 3 * wide, [&] { layer.group(); });
    products("experts, portable", expert_work, [&] { layer.multiply_experts(ExpertKernels::portable); });
    if (device_.properties.major == 9) {
      const std::vector<float> expected = layer.norms();
      products("experts, wgmma", expert_work, [&] { layer.multiply_experts(ExpertKernels::hopper); });
      print_difference(expected, layer.norms());
    }
    bytes("combine", slots * hidden * act + 2 * rows * hidden * wide, [&] { layer.add_experts(); });
    bytes("accumulate", slots * 5 * wide, [&] { layer.add_sums(); });
    products("all", expert_work + attention_work + 2 * rows * hidden * (projected + kQ), [&] { layer.all(); });
    return std::move(results_);
  }

 private:
  void products(const std::string& operation, double operations, const std::function<void()>& work) {
    add(operation, "flop", operations, ceilings_.product, work);
  }
  void bytes(const std::string& operation, double bytes, const std::function<void()>& work) {
    add(operation, "byte", bytes, ceilings_.copy, work);
  }
  void add(const std::string& operation, const char* unit, double amount, double ceiling,
           const std::function<void()>& work) {
    const double seconds = device_.measure(seconds_, work);
    const double rate = amount / seconds;
    results_.push_back({operation, seconds, unit, amount, rate / ceiling});
    const bool is_flop = std::strcmp(unit, "flop") == 0;
    fmt::print("  {:24} {:9.3f} ms {:9.1f} {:8} share {:.2f}\n", operation, seconds * 1e3,
               rate / (is_flop ? 1e12 : 1e9), is_flop ? "TFLOP/s" : "GB/s", results_.back().share);
    std::fflush(stdout);
  }

  /// Both kinds of kernels round alike but for the order of additions: a difference above 1e-3 is an error in one.
  static void print_difference(const std::vector<float>& expected, const std::vector<float>& got) {
    double largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = std::abs(got[i] - expected[i]) / expected[i];
      if (!(difference <= largest)) largest = difference;  // NaN too
    }
    fmt::print("  {:24} norms differ from the portable kernels' by at most {:.2g} of each\n", "", largest);
  }

  Device& device_;
  Ceilings ceilings_;
  double seconds_;
  std::vector<Result> results_;
};

}  // namespace

int main(int argc, char** argv) try {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  Device device;
  const Ceilings ceilings = measure_ceilings(device, seconds);
  fmt::print("{}: cuBLAS product {:.1f} TFLOP/s, copy {:.1f} GB/s\n", device.properties.name, ceilings.product / 1e12,
             ceilings.copy / 1e9);
  std::string lines;
  for (const DType stored : {DType::bf16, DType::f8_e4m3}) {
    const LayerWeights weights(device, stored);
    for (const std::int64_t tokens : {kSample, 8 * kSample}) {
      fmt::print("{} weights, {} tokens in samples of {}\n", name_of(stored), tokens, kSample);
      for (const Result& r : LayerBench(device, ceilings, seconds).run(weights, tokens)) {
        lines += fmt::format(
            R"({}{{"weights":"{}","tokens":{},"operation":"{}","seconds":{:.4g},"unit":"{}","amount":{:.6g},"share":{:.4f}}})",
            lines.empty() ? "" : ",", name_of(stored), tokens, r.operation, r.seconds, r.unit, r.amount, r.share);
      }
    }
  }
  fmt::print(R"({{"device":"{}","product_flops":{:.6g},"copy_bytes":{:.6g},"results":[{}]}})"
             "\n",
             device.properties.name, ceilings.product, ceilings.copy, lines);
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
