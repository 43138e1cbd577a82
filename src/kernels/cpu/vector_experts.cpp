#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace reap::REAP_ISA {
namespace {

using DoubleVec = double __attribute__((vector_size(kVectorBytes)));
using LooseHalfVec = float __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));

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

// Squares in fp64 in 32 lanes (element i in lane i mod 32) and a tree over them: the same order for every build.
// Magnitudes are compared as integers, which order like the numbers they stand for and put NaN on top.
double square_sum_and_max(const float* x, std::int64_t count, float* max_abs) {
  constexpr int kSumLanes = 32;
  constexpr int kDoubleLanes = kLanes / 2;
  constexpr int kParts = kSumLanes / kDoubleLanes;
  DoubleVec sum[kParts] = {};
  IntVec max{};
  const auto add = [&](const float* from) {
    for (int part = 0; part < kParts; ++part) {
      const LooseHalfVec half = *reinterpret_cast<const LooseHalfVec*>(from + part * kDoubleLanes);
      const DoubleVec value = __builtin_convertvector(half, DoubleVec);
      sum[part] += value * value;
    }
    for (int part = 0; part < kSumLanes / kLanes; ++part) {
      const IntVec magnitude = reinterpret_cast<IntVec>(load(from + part * kLanes)) & 0x7fffffff;
      max = magnitude > max ? magnitude : max;
    }
  };
  std::int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) add(x + i);
  if (i < count) {
    float rest[kSumLanes] = {};
    for (int lane = 0; i < count; ++i, ++lane) rest[lane] = x[i];
    add(rest);
  }
  for (int half = kParts / 2; half > 0; half /= 2) {
    for (int part = 0; part < half; ++part) sum[part] += sum[part + half];
  }
  double sums[kDoubleLanes];
  std::int32_t maxima[kLanes];
  __builtin_memcpy(sums, sum, sizeof sums);
  __builtin_memcpy(maxima, &max, sizeof maxima);
  for (int half = kDoubleLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      maxima[lane] = maxima[lane + half] > maxima[lane] ? maxima[lane + half] : maxima[lane];
    }
  }
  *max_abs = __builtin_bit_cast(float, maxima[0]);
  return sums[0];
}

}  // namespace reap::REAP_ISA
