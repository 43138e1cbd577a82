#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.hpp"
#include "kernels/cpu/ops.hpp"

namespace reap::cpu {

void RopeTable::cover(const AttentionShape& shape, std::int64_t positions, int threads) {
  const bool same = shape.rotary_dim == rotary_dim_ && shape.rope_theta == theta_;
  if (same && positions <= positions_) return;
  const std::int64_t half = shape.rotary_dim / 2;
  std::vector<double> frequency(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(shape.rotary_dim);
    frequency[static_cast<std::size_t>(i)] = std::pow(shape.rope_theta, exponent);
  }
  const std::int64_t known = same ? positions_ : 0;
  angles_.resize(static_cast<std::size_t>(positions * shape.rotary_dim));
  float* angles = angles_.data();
  // Angles in fp64: in fp32 that of position 100,000 would be off by 4e-3 already.
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t position = known; position < positions; ++position) {
    float* cosine = angles + position * shape.rotary_dim;
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequency[static_cast<std::size_t>(i)];
      cosine[i] = static_cast<float>(std::cos(angle));
      cosine[half + i] = static_cast<float>(std::sin(angle));
    }
  }
  rotary_dim_ = shape.rotary_dim;
  theta_ = shape.rope_theta;
  positions_ = positions;
}

void qk_norm_rope(const Run& run, RopeTable& table, const float* q, const float* k, const float* v,
                  const float* q_weight, const float* k_weight, const std::int32_t* position,
                  const AttentionShape& shape, std::int64_t rows, void* q_act, void* k_act, void* v_act) {
  if (rows == 0) return;
  const auto [lowest, highest] = std::minmax_element(position, position + rows);
  REAP_CHECK(*lowest >= 0, "position {} of a row is negative", *lowest);
  REAP_CHECK(shape.rotary_dim % 2 == 0 && shape.rotary_dim <= shape.head_dim, "{} of {} dims cannot be rotated",
             shape.rotary_dim, shape.head_dim);
  table.cover(shape, std::int64_t{*highest} + 1, run.threads);

  const std::int64_t q_width = shape.heads * shape.head_dim;
  const std::int64_t kv_width = shape.kv_heads * shape.head_dim;
  const Buffer<float> scratch(host_memory, run.threads * q_width);
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    float* wide = scratch.data() + omp_get_thread_num() * q_width;
    const float* angle = table.at(position[row]);
    const auto norm_rope = [&](const float* x, const float* weight, std::int64_t heads, void* act) {
      const std::int64_t width = heads * shape.head_dim;
      run.vector.rms_norm(x + row * width, weight, shape.norm_eps, width, wide);
      run.vector.rope(wide, angle, heads, shape.head_dim, shape.rotary_dim / 2);
      to_act(run, wide, width, act, row * width);
    };
    norm_rope(q, q_weight, shape.heads, q_act);
    norm_rope(k, k_weight, shape.kv_heads, k_act);
    to_act(run, v + row * kv_width, kv_width, v_act, row * kv_width);
  }
}

}  // namespace reap::cpu
