// Attention of the CPU backend beside the rate of fp32 multiply-adds that the machine reaches on registers alone.
//
//   attention_bench [threads] [seconds per line]
//
// Only useful work counts: 4 * head_dim operations per query, head and visible key. Both take turns and the best of
// each counts, because other work on the machine only ever slows one down.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "kernels/backend.hpp"

namespace {

using namespace reap;

constexpr int kChains = 12;  // independent sums: more than a multiply-add takes cycles, few enough for 16 registers

/// CPU time of the process.
double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

using Vec32 = float __attribute__((vector_size(32)));
using Vec64 = float __attribute__((vector_size(64)));

/// Operations per second of one thread, with registers of that size.
template <class Vec>
double multiply_adds() {
  constexpr int kSteps = 200000;
  Vec sum[kChains] = {};
  for (int chain = 0; chain < kChains; ++chain) sum[chain][0] = static_cast<float>(chain);  // none is another's copy
  const Vec factor = Vec{} + 0.999f;
  const double begin = now();
  for (int step = 0; step < kSteps; ++step) {
    for (Vec& chain : sum) chain = chain * factor + factor;
  }
  const double wall = now() - begin;
  volatile float used = 0;
  for (const Vec& chain : sum) used = used + chain[0];
  return 2.0 * kSteps * kChains * (sizeof(Vec) / sizeof(float)) / wall;
}

double limit() { return std::max(multiply_adds<Vec32>(), multiply_adds<Vec64>()); }

void measure(Compute compute, int threads, double seconds, const AttentionShape& shape, std::int64_t length,
             std::int64_t samples) {
  const auto backend = make_cpu_backend(compute, threads, CpuIsa::automatic);
  const std::int64_t rows = length * samples;
  const auto bytes_per_element = static_cast<std::int64_t>(size_of(activation_dtype(compute)));
  const auto act = [&](std::int64_t heads) {
    const std::int64_t bytes = rows * heads * shape.head_dim * bytes_per_element;
    Buffer<std::byte> buffer(backend->memory(), bytes);
    std::fill_n(buffer.data(), bytes, std::byte{0x3c});  // 0x3c3c is 0.0115 as bf16, 0x3c3c3c3c the same as fp32
    return buffer;
  };
  const auto q = act(shape.heads);
  const auto k = act(shape.kv_heads);
  const auto v = act(shape.kv_heads);
  const auto out = act(shape.heads);
  std::vector<std::int64_t> start(static_cast<std::size_t>(samples) + 1);
  for (std::size_t s = 0; s < start.size(); ++s) start[s] = static_cast<std::int64_t>(s) * length;

  const double visible = static_cast<double>(length) * static_cast<double>(length + 1) / 2;
  const double work = 4.0 * static_cast<double>(shape.head_dim * shape.heads * samples) * visible;
  double best = 0;
  double most = 0;
  for (const double end = now() + seconds; now() < end;) {
    most = std::max(most, threads * limit());
    const double begin = now();
    backend->attention(q.data(), k.data(), v.data(), start, shape, out.data());
    best = std::max(best, threads * work / (now() - begin));
  }
  fmt::print("{} {:2} heads on {} of {:3}, {:3} samples of {:5}: {:6.1f} of {:6.1f} GFLOP/s, {:3.0f} %\n",
             compute == Compute::fp32 ? "fp32" : "bf16", shape.heads, shape.kv_heads, shape.head_dim, samples, length,
             best * 1e-9, most * 1e-9, 100 * best / most);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 3;
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    measure(compute, threads, seconds, {12, 2, 128, 64, 1e4, 1e-6f}, 2048, 1);
    measure(compute, threads, seconds, {12, 2, 128, 64, 1e4, 1e-6f}, 512, 8);
    measure(compute, threads, seconds, {12, 2, 128, 64, 1e4, 1e-6f}, 100, 40);
    measure(compute, threads, seconds, {8, 8, 128, 64, 1e4, 1e-6f}, 2048, 1);
    measure(compute, threads, seconds, {12, 2, 64, 32, 1e4, 1e-6f}, 2048, 1);
    measure(compute, threads, seconds, {8, 2, 24, 12, 1e4, 1e-6f}, 512, 8);
  }
}
