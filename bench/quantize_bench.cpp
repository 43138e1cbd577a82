// Rounding to 4 bits beside a memcpy of the same weights.
//
//   quantize_bench [threads] [seconds per line] [rows] [cols]
//
// The weight is larger than the caches, so memcpy shows what the memory gives: "of memcpy" is the share of its rate, in
// bytes read, that rounding reaches. Both take turns and the best time of each counts, because other work on the
// machine only ever slows one down. One thread is timed by its own clock, which stands still while others have the
// processor. quantize_bench.py has the same formulas in torch beside it.

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <vector>

#include "kernels/backend.hpp"

namespace {

using namespace reap;

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

/// A weight of many rows that repeat after some, to be made quickly.
std::vector<bf16> make_weight(std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t kFresh = 64;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<bf16> weight(static_cast<std::size_t>(rows * cols));
  const auto fresh = static_cast<std::size_t>(std::min(kFresh, rows) * cols);
  for (std::size_t i = 0; i < fresh; ++i) weight[i] = to_bf16(normal(generator));
  for (std::size_t i = fresh; i < weight.size(); ++i) weight[i] = weight[i - fresh];
  return weight;
}

void copy(const std::vector<bf16>& from, std::vector<bf16>& to, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    const std::size_t share = from.size() / static_cast<std::size_t>(threads);
    std::memcpy(to.data() + thread * share, from.data() + thread * share, share * sizeof(bf16));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 2;
  const std::int64_t rows = argc > 3 ? std::atoll(argv[3]) : 32768;
  const std::int64_t cols = argc > 4 ? std::atoll(argv[4]) : 3072;
  const auto backend = make_cpu_backend(Compute::bf16, threads, CpuIsa::automatic);
  const std::vector<bf16> weight = make_weight(rows, cols);
  std::vector<bf16> copied(weight.size());
  std::vector<std::uint32_t> words(weight.size() / 8);
  std::vector<std::uint16_t> scales(weight.size() / 32);
  const std::vector<float> sums(static_cast<std::size_t>(cols), 1.5f);
  fmt::print("[{}, {}] bf16, {} threads, {}\n{:<26}{:>12}{:>14}\n", rows, cols, threads, backend->numerics_id(), "",
             "Mweights/s", "of memcpy");
  for (const auto& [rounding, weighted, group] :
       std::vector<std::tuple<Rounding, bool, std::int64_t>>{{Rounding::rtn, false, 128},
                                                             {Rounding::rtn, false, 32},
                                                             {Rounding::opt_rtn, false, 128},
                                                             {Rounding::opt_rtn, true, 128},
                                                             {Rounding::opt_rtn, true, 32}}) {
    // A search is so much slower than memory that fewer rows do.
    const std::int64_t own_rows = rounding == Rounding::rtn ? rows : std::max<std::int64_t>(1, rows / 64);
    const Importance importance = effective_importance(sums.data(), cols, group);
    const WeightSource source{reinterpret_cast<const std::byte*>(weight.data()), DType::bf16, own_rows, cols, nullptr};
    double ours = 1e9, memcpy_time = 1e9;
    for (double spent = 0; spent < seconds;) {
      ours = std::min(
          ours, seconds_of(threads, [&] {
            backend->quantize(source, {rounding, group}, weighted ? &importance : nullptr, words.data(), scales.data());
          }));
      memcpy_time = std::min(memcpy_time, seconds_of(threads, [&] { copy(weight, copied, threads); }));
      spent += ours + memcpy_time;
    }
    const double rate = static_cast<double>(own_rows * cols) / ours;
    const double memcpy_rate = static_cast<double>(weight.size()) / memcpy_time;
    fmt::print(
        "{:<26}{:>12.1f}{:>14.3f}\n",
        fmt::format("{} {}{}", rounding == Rounding::rtn ? "rtn" : "opt-rtn", group, weighted ? " importance" : ""),
        rate * 1e-6, rate / memcpy_rate);
  }
}
