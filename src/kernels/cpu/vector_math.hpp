#pragma once

// Vectors of the widest registers that the file is compiled for. Included by kernels/cpu/vector_*.cpp only, which are
// compiled once per instruction set with
//   REAP_ISA           the namespace of that build
//   REAP_VECTOR_BYTES  the size of its registers
// Everything here is static, so that no build's code can be linked into another's.

#include <cstdint>

#include "kernels/dtype.hpp"

namespace reap::REAP_ISA {

constexpr int kVectorBytes = REAP_VECTOR_BYTES;
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(float));

using Vec = float __attribute__((vector_size(kVectorBytes)));
using IntVec = std::int32_t __attribute__((vector_size(kVectorBytes)));
using UintVec = std::uint32_t __attribute__((vector_size(kVectorBytes)));
using LooseVec = float __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
using LooseHalf = std::uint16_t __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));

static inline Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
static inline Vec load(const bf16* from) {
  const LooseHalf bits = *reinterpret_cast<const LooseHalf*>(from);
  return reinterpret_cast<Vec>(__builtin_convertvector(bits, IntVec) << 16);
}
static inline void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }
static inline Vec splat(float value) { return value - Vec{}; }  // minus zero keeps the sign of -0

/// e^x for x <= 0, within 1.5 units in the last place; 0 below the smallest normal result, NaN for NaN.
static inline Vec exp_nonpositive(Vec x) {
  constexpr float kLowest = -87.3365f;   // e^kLowest is just above 2^-126
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;  // few enough bits that n * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  const Vec shifted = x * kLog2E + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (x - n * kLn2High) - n * kLn2Low;
  Vec p = splat(1.9875691500e-4f);  // minimax on [-ln2/2, ln2/2] (Cephes)
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vec e = (p * r * r + r) + 1.0f;
  // The low bits of `shifted` hold n; moved to the exponent they scale by 2^n. Where x is too low for that, they wrap.
  const UintVec scaled = reinterpret_cast<UintVec>(e) + (reinterpret_cast<UintVec>(shifted) << 23);
  return x < kLowest ? Vec{} : (x == x ? reinterpret_cast<Vec>(scaled) : x);
}

/// 1 / (1 + e^-x), without overflow at either end.
static inline Vec sigmoid_of(Vec x) {
  const Vec e = exp_nonpositive(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : splat(1.0f)) / (1.0f + e);
}

/// The first `count` elements at `from`, all lanes when there are more; the other lanes are zero.
template <class T>
static inline Vec load_some(const T* from, std::int64_t count) {
  if (count >= kLanes) return load(from);
  T padded[kLanes] = {};
  for (std::int64_t lane = 0; lane < count; ++lane) padded[lane] = from[lane];
  return load(padded);
}

/// Stores the first `count` lanes, all of them when there are more.
static inline void store_some(float* to, Vec value, std::int64_t count) {
  if (count >= kLanes) return store(to, value);
  float padded[kLanes];
  store(padded, value);
  for (std::int64_t lane = 0; lane < count; ++lane) to[lane] = padded[lane];
}

}  // namespace reap::REAP_ISA
