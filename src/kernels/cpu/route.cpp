#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/check.hpp"
#include "kernels/cpu/ops.hpp"

namespace reap::cpu {
namespace {

constexpr std::uint32_t kNanRank = 0xffffffffU;

/// A total order of (score, expert) as one integer, lower experts first among equals and NaN above all.
std::uint64_t ranking(float score, std::int64_t expert) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0f);  // -0 becomes 0
  const std::uint32_t ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
  const std::uint32_t rank = std::isnan(score) ? kNanRank : ordered;
  return (std::uint64_t{rank} << 32) | (0xffffffffU - static_cast<std::uint32_t>(expert));
}

std::int32_t expert_of(std::uint64_t ranked) { return static_cast<std::int32_t>(0xffffffffU - (ranked & 0xffffffffU)); }

/// The rankings of the top_k experts by s + bias, highest first.
void rank(const float* s, const float* bias, std::int64_t experts, std::int64_t top_k, std::uint64_t* best) {
  std::fill(best, best + top_k, 0);  // below every ranking
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::uint64_t candidate = ranking(s[e] + bias[e], e);
    if (candidate < best[top_k - 1]) continue;
    std::int64_t place = top_k - 1;
    for (; place > 0 && best[place - 1] < candidate; --place) best[place] = best[place - 1];
    best[place] = candidate;
  }
}

/// The ranked experts, ascending by id, and their gate values: NaN in a row with a score of NaN.
void choose(const float* s, const std::uint64_t* best, std::int64_t top_k, std::int32_t* expert, float* gate_value) {
  std::transform(best, best + top_k, expert, expert_of);
  std::sort(expert, expert + top_k);
  float total = best[0] >> 32 == kNanRank ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  for (std::int64_t j = 0; j < top_k; ++j) total += s[expert[j]];
  for (std::int64_t j = 0; j < top_k; ++j) gate_value[j] = s[expert[j]] / total;
}

}  // namespace

void select_experts(const Run& run, const float* logits, const float* bias, std::int64_t rows, std::int64_t experts,
                    std::int64_t top_k, std::int32_t* expert, float* gate_value) {
  REAP_CHECK(top_k >= 1 && top_k <= experts, "top {} of {} experts", top_k, experts);
  const Buffer<float> sigmoids(host_memory, run.threads * experts);
  const Buffer<std::uint64_t> bests(host_memory, run.threads * top_k);
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    float* s = sigmoids.data() + omp_get_thread_num() * experts;
    run.vector.sigmoid(logits + row * experts, experts, s);
    std::uint64_t* best = bests.data() + omp_get_thread_num() * top_k;
    rank(s, bias, experts, top_k, best);
    choose(s, best, top_k, expert + row * top_k, gate_value + row * top_k);
  }
}

}  // namespace reap::cpu
