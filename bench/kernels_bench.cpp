// Products and experts of the CPU backend beside the rate that oneDNN reaches alone on the same shapes.
//
//   kernels_bench [threads] [seconds per line] [only lines that hold this text]
//
// "limit" is oneDNN by itself: weights packed once, 4,096 rows in one call, its own threading, same type of product.
// "ours" is Backend::matmul or Backend::experts, all of it: gathering rows, expanding weights, silu, norms. Both take
// turns and the best time of each counts, because other work on the machine only ever slows one down. One thread is
// timed by its own clock, which stands still while other programs have the processor.
//
// "sums" lines set what the pass collects besides against the experts' products of the same tokens, ours.

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>
#include <dnnl.hpp>
#include <functional>
#include <random>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/round_up.hpp"

namespace {

using namespace reap;
using dnnl::memory;

constexpr std::int64_t kRows = 4096;

double seconds_of(int threads, const std::function<void()>& work) {
  const auto now = [&] {
    timespec time{};
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double begin = now();
  work();
  return now() - begin;
}

/// oneDNN's own product of kRows rows; its best time so far.
class Limit {
 public:
  Limit(DType dtype, std::int64_t cols, std::int64_t rows, int threads) : threads_{threads} {
    omp_set_num_threads(threads);
    const auto type = dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::desc x({kRows, cols}, type, memory::format_tag::ab);
    const memory::desc w({cols, rows}, type, memory::format_tag::any);
    const memory::desc out({kRows, rows}, memory::data_type::f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc primitive({x, w, out}, engine_);
    product_ = dnnl::matmul(primitive);
    for (const auto& [argument, desc] :
         {std::pair{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, primitive.weights_desc()}, {DNNL_ARG_DST, out}}) {
      memory operand(desc, engine_);
      std::fill_n(static_cast<std::byte*>(operand.get_data_handle()), desc.get_size(), std::byte{0x3c});
      operands_.emplace(argument, operand);
    }
  }
  void measure() {
    omp_set_num_threads(threads_);
    best_ = std::min(best_, seconds_of(threads_, [&] {
                       product_.execute(stream_, operands_);
                       stream_.wait();
                     }));
  }
  double seconds_per_row() const { return best_ / kRows; }

 private:
  int threads_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul product_;
  std::unordered_map<int, memory> operands_;
  double best_ = 1e30;
};

/// Random weights of a checkpoint's type.
struct Weights {
  Weights(DType dtype, std::int64_t rows, std::int64_t cols, std::mt19937& random)
      : bytes(static_cast<std::size_t>(rows * cols) * size_of(dtype)),
        scales(static_cast<std::size_t>(ceil_div(rows, kScaleBlock) * ceil_div(cols, kScaleBlock)), 0.01f),
        source{bytes.data(), dtype, rows, cols, dtype == DType::f8_e4m3 ? scales.data() : nullptr} {
    for (std::size_t i = 0; i < bytes.size(); i += size_of(dtype)) {
      const auto bits = random();
      if (dtype == DType::f8_e4m3) bytes[i] = static_cast<std::byte>(bits % 0x77 | (bits & 0x80));
      if (dtype == DType::bf16) bytes[i + 1] = static_cast<std::byte>(0x3c | (bits & 0x80));
      if (dtype == DType::f32) bytes[i + 3] = static_cast<std::byte>(0x3c | (bits & 0x80));
    }
  }
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  WeightSource source;
};

Buffer<std::byte> activations(const Backend& backend, std::int64_t count) {
  Buffer<std::byte> x(host_memory, count * static_cast<std::int64_t>(size_of(activation_dtype(backend.compute()))));
  std::fill_n(x.data(), x.size(), std::byte{0x3c});
  return x;
}

/// The settings of a line.
struct Setting {
  Compute compute;
  DType stored;
  int threads;
  double seconds;
  std::string_view only;
};

std::string title(const Setting& s, const std::string& operation) {
  return fmt::format("{:28} {} weights {:8}", operation, s.compute == Compute::bf16 ? "bf16" : "fp32",
                     name_of(s.stored));
}

void report(const std::string& title, double flop, double limit, double ours) {
  fmt::print("{} limit {:7.1f} GFLOP/s, ours {:7.1f}, ratio {:.2f}\n", title, flop / limit / 1e9, flop / ours / 1e9,
             limit / ours);
  std::fflush(stdout);
}

/// Runs `ours` and the limits in turns; @return ours, the best time.
double race(const Setting& s, const std::function<void()>& ours, std::vector<Limit*> limits) {
  double best = 1e30, spent = 0;
  ours();
  while (spent < s.seconds) {
    for (Limit* limit : limits) limit->measure();
    const double time = seconds_of(s.threads, ours);
    best = std::min(best, time);
    spent += time;
  }
  return best;
}

DType product_dtype(Compute compute) {
  return compute == Compute::bf16 ? bf16_product_dtype(settle_isa(CpuIsa::automatic)) : DType::f32;
}

void bench_matmul(const Setting& s, std::int64_t cols, std::int64_t rows, bool add) {
  const std::string line = title(s, fmt::format("matmul{} [{}, {}]", add ? " add" : "", rows, cols));
  if (line.find(s.only) == std::string::npos) return;
  std::mt19937 random(1);
  const auto backend = make_cpu_backend(s.compute, s.threads, CpuIsa::automatic);
  const Weights weights(s.stored, rows, cols, random);
  const auto packed = backend->pack(weights.source, s.compute);
  const auto x = activations(*backend, kRows * cols);
  const Buffer<float> out(host_memory, kRows * rows);
  std::fill_n(out.data(), out.size(), 0.0f);
  Limit limit(product_dtype(s.compute), cols, rows, s.threads);
  const double ours = race(s, [&] { backend->matmul(x.data(), kRows, *packed, out.data(), add); }, {&limit});
  report(line, 2.0 * static_cast<double>(kRows * cols * rows), limit.seconds_per_row() * kRows, ours);
}

void bench_experts(const Setting& s, std::int64_t hidden, std::int64_t inner, std::int64_t experts,
                   std::int64_t slots_per_expert) {
  const std::string line = title(s, fmt::format("experts {}x{} [{}, {}]", experts, slots_per_expert, inner, hidden));
  if (line.find(s.only) == std::string::npos) return;
  std::mt19937 random(1);
  const auto backend = make_cpu_backend(s.compute, s.threads, CpuIsa::automatic);
  const Weights up(s.stored, inner, hidden, random), down(s.stored, hidden, inner, random);
  std::vector<std::unique_ptr<Weight>> owned;
  std::vector<ExpertWeights> weights;
  std::vector<std::int64_t> start{0};
  for (std::int64_t e = 0; e < experts; ++e) {
    for (const Weights* w : {&up, &up, &down}) owned.push_back(backend->pack(w->source, s.compute));
    weights.push_back({owned.end()[-3].get(), owned.end()[-2].get(), owned.end()[-1].get()});
    start.push_back(start.back() + slots_per_expert / 2 + static_cast<std::int64_t>(random()) % slots_per_expert);
  }
  const std::int64_t slots = start.back();
  const auto x = activations(*backend, kRows * hidden), f = activations(*backend, slots * hidden);
  std::vector<std::int32_t> row(static_cast<std::size_t>(slots));
  for (std::int32_t& r : row) r = static_cast<std::int32_t>(random() % kRows);
  for (std::size_t e = 0; e + 1 < start.size(); ++e) std::sort(row.begin() + start[e], row.begin() + start[e + 1]);
  std::vector<float> norm(row.size()), max_abs(row.size());
  Limit first(product_dtype(s.compute), hidden, inner, s.threads),
      second(product_dtype(s.compute), inner, hidden, s.threads);
  const double ours = race(
      s, [&] { backend->experts(x.data(), row.data(), start, weights, f.data(), norm.data(), max_abs.data(), {}); },
      {&first, &second});
  report(line, 6.0 * static_cast<double>(slots * hidden * inner),
         static_cast<double>(slots) * (2 * first.seconds_per_row() + second.seconds_per_row()), ours);
}

/// Sums over the outputs of tokens, each of which chooses 8 of the experts, beside the experts' products.
void bench_sums(const Setting& s, std::int64_t hidden, std::int64_t inner, std::int64_t experts) {
  const std::string line = title(s, fmt::format("sums {} [{}, {}]", experts, inner, hidden));
  if (line.find(s.only) == std::string::npos) return;
  constexpr std::int64_t kTopK = 8;
  std::mt19937 random(1);
  const auto backend = make_cpu_backend(s.compute, s.threads, CpuIsa::automatic);
  const Weights up(s.stored, inner, hidden, random), down(s.stored, hidden, inner, random);
  const auto first = backend->pack(up.source, s.compute), second = backend->pack(down.source, s.compute);
  const std::vector<ExpertWeights> weights(static_cast<std::size_t>(experts), {first.get(), first.get(), second.get()});
  const std::int64_t slots = kRows * kTopK;
  std::vector<std::int32_t> expert, order(static_cast<std::size_t>(slots)), position(order);
  for (std::int32_t row = 0; row < kRows; ++row) {  // ascending, with a spread over all
    for (std::int32_t k = 0; k < kTopK; ++k) {
      const auto step = static_cast<std::int32_t>(experts / kTopK);
      expert.push_back(k * step + static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(step)));
    }
  }
  std::vector<std::int64_t> start(static_cast<std::size_t>(experts) + 1);
  backend->group_slots(expert.data(), slots, 0, experts, order.data(), position.data(), start.data());
  for (std::int32_t& slot : order) slot /= kTopK;
  const auto x = activations(*backend, kRows * hidden), f = activations(*backend, slots * hidden);
  const std::vector<float> gate(expert.size(), 0.125f);
  std::vector<float> norm(expert.size()), max_abs(expert.size());
  std::vector<std::int64_t> pairs(static_cast<std::size_t>(pair_count(experts) * kDigits));
  std::vector<std::int64_t> outputs(static_cast<std::size_t>(experts * hidden));
  const auto sums_of = [](std::int64_t groups, std::int64_t width) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(groups * kSquareDigits * width));
  };
  std::vector<std::int64_t> of_hidden = sums_of(experts, hidden), of_inner = sums_of(experts, inner);
  std::vector<std::int64_t> of_heads = sums_of(1, 2 * hidden);  // attention heads together are twice as wide as a state
  std::int64_t bad = 0;
  const auto time = [&](const std::function<void()>& work) { return race(s, work, {}); };
  const double products = time(
      [&] { backend->experts(x.data(), order.data(), start, weights, f.data(), norm.data(), max_abs.data(), {}); });
  const double of_squares = time([&] {
    const std::array<std::int64_t, 2> all{0, kRows};
    backend->accumulate_squares(x.data(), order.data(), start, hidden, {of_hidden.data(), &bad});
    backend->accumulate_squares(f.data(), nullptr, start, inner,
                                {of_inner.data(), &bad});  // as experts() does by itself
    backend->accumulate_squares(x.data(), nullptr, all, hidden, {of_heads.data(), &bad});
    backend->accumulate_squares(f.data(), nullptr, all, 2 * hidden, {of_heads.data(), &bad});
  });
  const double of_pairs = time([&] {
    backend->accumulate_pairs(expert.data(), gate.data(), f.data(), position.data(), kRows, kTopK, hidden, experts,
                              pairs.data(), &bad);
  });
  const double of_outputs = time([&] {
    backend->accumulate_outputs(expert.data(), f.data(), position.data(), kRows, kTopK, hidden, outputs.data());
  });
  fmt::print("{} of the experts' time: pairs {:.2f} %, outputs {:.2f} %, squares {:.2f} %\n", line,
             100 * of_pairs / products, 100 * of_outputs / products, 100 * of_squares / products);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 2.0;
  const std::string_view only = argc > 3 ? argv[3] : "";
  fmt::print("{} threads, {}\n", threads, make_cpu_backend(Compute::bf16, threads, CpuIsa::automatic)->numerics_id());
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    for (const DType stored : {DType::bf16, DType::f8_e4m3}) {
      const Setting setting{compute, stored, threads, seconds, only};
      bench_matmul(setting, 3072, 6144, false);
      bench_matmul(setting, 256, 512, false);
      bench_matmul(setting, 512, 256, true);
      bench_experts(setting, 3072, 1536, 4, 1024);
      bench_experts(setting, 3072, 1536, 8, 128);
      bench_experts(setting, 256, 128, 64, 256);
      bench_experts(setting, 128, 64, 32, 512);
      bench_sums(setting, 3072, 1536, 16);
    }
  }
}
