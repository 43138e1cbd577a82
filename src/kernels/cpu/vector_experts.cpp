#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace reap::REAP_ISA {
namespace {

// OCP e4m3fn, as dtype.cpp's f8_e4m3_to_float, without branches.
inline float f8_value(std::uint32_t code) {
  const std::uint32_t magnitude = code & 0x7fU;
  const float subnormal = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-9f;
  const std::uint32_t normal = (magnitude << 20) + (120U << 23);  // from a bias of 7 to one of 127
  const std::uint32_t finite = magnitude < 8 ? __builtin_bit_cast(std::uint32_t, subnormal) : normal;
  const std::uint32_t bits = magnitude == 0x7fU ? 0x7fc00000U : finite;
  return __builtin_bit_cast(float, bits | (code & 0x80U) << 24);
}

}  // namespace

void f8_to_f32(const std::uint8_t* from, std::int64_t count, float scale, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = f8_value(from[i]) * scale;
}

void round_to_bf16(const float* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, from[i]);
    const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U;  // to nearest even
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    to[i] = is_nan ? from[i] : __builtin_bit_cast(float, rounded);
  }
}

void silu_mul(const float* gate, const float* up, std::int64_t count, float* product) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec g = load_some(gate + i, count - i);
    store_some(product + i, g * sigmoid_of(g) * load_some(up + i, count - i), count - i);
  }
}

// Squares in fp64 in 16 lanes (element i in lane i mod 16) and a tree over them: the same order for every build.
// Magnitudes are compared as integers, which order like the numbers they stand for and put NaN on top.
double square_sum_and_max(const float* x, std::int64_t count, float* max_abs) {
  constexpr int kSumLanes = 16;
  double sum[kSumLanes] = {};
  std::int32_t max[kSumLanes] = {};
  std::int64_t i = 0;
  const auto add = [&](int lane, float value) {
    const std::int32_t magnitude = __builtin_bit_cast(std::int32_t, value) & 0x7fffffff;
    sum[lane] += static_cast<double>(value) * static_cast<double>(value);
    max[lane] = magnitude > max[lane] ? magnitude : max[lane];
  };
  for (; i + kSumLanes <= count; i += kSumLanes) {
    for (int lane = 0; lane < kSumLanes; ++lane) add(lane, x[i + lane]);
  }
  for (int lane = 0; i < count; ++i, ++lane) add(lane, x[i]);
  for (int half = kSumLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      sum[lane] += sum[lane + half];
      max[lane] = max[lane + half] > max[lane] ? max[lane + half] : max[lane];
    }
  }
  *max_abs = __builtin_bit_cast(float, max[0]);
  return sum[0];
}

}  // namespace reap::REAP_ISA
