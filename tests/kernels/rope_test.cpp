#include <cmath>

#include "backends.hpp"
#include "values.hpp"

namespace reap {
namespace {

using test::act_buffer;
using test::as_act;
using test::download_act;
using test::random_values;
using test::upload;

/// fp32 norms and rotations of values below 4.
constexpr double kFp32Rope = 4e-6;
/// Half a unit in the last place of bf16.
constexpr double kBf16Rounding = 0x1p-8;

class QkNormRope : public test::BackendTest {};
REAP_TEST_ON_BACKENDS(QkNormRope);

double norm_scale(const float* row, std::int64_t width, float eps) {
  double squares = 0;
  for (std::int64_t i = 0; i < width; ++i) squares += static_cast<double>(row[i]) * row[i];
  return 1 / std::sqrt(squares / static_cast<double>(width) + eps);
}

std::vector<double> norm_rope(const std::vector<float>& x, const std::vector<float>& weight, std::int64_t heads,
                              const AttentionShape& shape, const std::vector<std::int32_t>& position) {
  const std::int64_t width = heads * shape.head_dim;
  const std::int64_t half = shape.rotary_dim / 2;
  std::vector<double> y(x.size());
  for (std::size_t row = 0; row < position.size(); ++row) {
    const float* in = x.data() + row * static_cast<std::size_t>(width);
    double* out = y.data() + row * static_cast<std::size_t>(width);
    const double scale = norm_scale(in, width, shape.norm_eps);
    for (std::int64_t i = 0; i < width; ++i) out[i] = in[i] * scale * weight[static_cast<std::size_t>(i)];
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(shape.rotary_dim);
        const double angle = position[row] * std::pow(shape.rope_theta, exponent);
        double& low = out[head * shape.head_dim + i];
        double& high = out[head * shape.head_dim + i + half];
        const double rotated = low * std::cos(angle) - high * std::sin(angle);
        high = high * std::cos(angle) + low * std::sin(angle);
        low = rotated;
      }
    }
  }
  return y;
}

struct Tensors {
  std::vector<float> q, k, v;
};

Tensors run(Backend& backend, const Tensors& in, const std::vector<float>& q_weight, const std::vector<float>& k_weight,
            const std::vector<std::int32_t>& position, const AttentionShape& shape) {
  const auto rows = static_cast<std::int64_t>(position.size());
  const auto q = act_buffer(backend, rows * shape.heads * shape.head_dim);
  const auto k = act_buffer(backend, rows * shape.kv_heads * shape.head_dim);
  const auto v = act_buffer(backend, rows * shape.kv_heads * shape.head_dim);
  backend.qk_norm_rope(upload(backend, in.q).data(), upload(backend, in.k).data(), upload(backend, in.v).data(),
                       upload(backend, q_weight).data(), upload(backend, k_weight).data(),
                       upload(backend, position).data(), shape, rows, q.data(), k.data(), v.data());
  return {download_act(backend, q), download_act(backend, k), download_act(backend, v)};
}

TEST_P(QkNormRope, EqualsAnglesInDouble) {
  const std::vector<AttentionShape> shapes{
      {4, 2, 24, 12, 1e4, 1e-6f}, {3, 1, 40, 20, 5e6, 1e-6f}, {2, 2, 128, 64, 5e6, 1e-5f}, {2, 1, 32, 32, 1e4, 1e-6f}};
  const std::vector<std::int32_t> position{0, 1, 2, 0, 63, 511, 4095, 199999};
  const auto rows = static_cast<std::int64_t>(position.size());
  const double relative = backend->compute() == Compute::bf16 ? kBf16Rounding : 0;
  for (const AttentionShape& shape : shapes) {
    const std::int64_t q_width = shape.heads * shape.head_dim;
    const std::int64_t kv_width = shape.kv_heads * shape.head_dim;
    const Tensors in{random_values(rows * q_width, 1), random_values(rows * kv_width, 2, -2, 3),
                     random_values(rows * kv_width, 3)};
    const std::vector<float> q_weight = random_values(q_width, 4, 0.5f, 1.5f);
    const std::vector<float> k_weight = random_values(kv_width, 5, 0.5f, 1.5f);
    const Tensors got = run(*backend, in, q_weight, k_weight, position, shape);
    const std::vector<double> q = norm_rope(in.q, q_weight, shape.heads, shape, position);
    const std::vector<double> k = norm_rope(in.k, k_weight, shape.kv_heads, shape, position);
    for (std::size_t i = 0; i < q.size(); ++i) {
      ASSERT_NEAR(got.q[i], q[i], kFp32Rope + relative * std::abs(q[i]))
          << "q " << i << ", head_dim " << shape.head_dim;
    }
    for (std::size_t i = 0; i < k.size(); ++i) {
      ASSERT_NEAR(got.k[i], k[i], kFp32Rope + relative * std::abs(k[i]))
          << "k " << i << ", head_dim " << shape.head_dim;
    }
    for (std::size_t i = 0; i < in.v.size(); ++i) ASSERT_EQ(got.v[i], as_act(*backend, in.v[i]));
  }
}

TEST_P(QkNormRope, ARowDoesNotDependOnItsNeighboursOrOnThreads) {
  const AttentionShape shape{3, 1, 40, 20, 5e6, 1e-6f};
  const std::vector<float> q_weight = random_values(120, 4);
  const std::vector<float> k_weight = random_values(40, 5);
  const std::vector<std::int32_t> position{5, 0, 900, 3, 3};
  const Tensors in{random_values(5 * 120, 1), random_values(5 * 40, 2), random_values(5 * 40, 3)};
  const Tensors all = run(*backend, in, q_weight, k_weight, position, shape);
  const auto single = GetParam().make(1);
  for (std::size_t row = 0; row < position.size(); ++row) {
    const auto cut = [&](const std::vector<float>& x, std::size_t width) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(row * width);
      return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(width));
    };
    const Tensors one =
        run(*single, {cut(in.q, 120), cut(in.k, 40), cut(in.v, 40)}, q_weight, k_weight, {position[row]}, shape);
    EXPECT_EQ(one.q, cut(all.q, 120)) << row;
    EXPECT_EQ(one.k, cut(all.k, 40)) << row;
  }
}

TEST_P(QkNormRope, TakesNoRowsAndNoRotation) {
  const AttentionShape shape{1, 1, 2, 0, 1e4, 0.0f};
  backend->qk_norm_rope(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, shape, 0, nullptr, nullptr, nullptr);
  const Tensors got = run(*backend, {{3, 4}, {6, 8}, {1, 2}}, {1, 1}, {1, 1}, {7}, shape);
  const float expected = as_act(*backend, 3.0f / std::sqrt(12.5f));
  EXPECT_NEAR(got.q[0], expected, kFp32Rope);
  EXPECT_NEAR(got.k[0], expected, kFp32Rope);
}

}  // namespace
}  // namespace reap
