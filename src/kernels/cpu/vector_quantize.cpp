#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

// AutoRound's 4-bit rounding, operation by operation (docs/numerics.md). Compiled without contraction: every product
// and every sum is rounded on its own.
namespace reap::REAP_ISA {
namespace {

using UintVec = std::uint32_t __attribute__((vector_size(kVectorBytes)));
using ByteVec = std::uint8_t __attribute__((vector_size(kLanes)));
using LooseByteVec = std::uint8_t __attribute__((vector_size(kLanes), aligned(1), may_alias));
using UnalignedVec = float __attribute__((vector_size(kVectorBytes), aligned(1), may_alias));
using UnalignedHalf = std::uint16_t __attribute__((vector_size(kVectorBytes / 2), aligned(1), may_alias));
using UnalignedInt16 = std::int16_t __attribute__((aligned(1), may_alias));
using UnalignedInt32 = std::int32_t __attribute__((aligned(1), may_alias));

constexpr int kSums = 32;  // partial sums of a loss: element i goes into sum i mod 32
constexpr int kSumLanes = 8;
constexpr int kMostGroup = 128;
constexpr int kScaleSteps = 90;  // to either side of the scale that takes the extreme value to -8
constexpr float kLowest = -8.0f;
constexpr float kHighest = 7.0f;
constexpr float kLeastScale = 1e-5f;
constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits

inline std::uint32_t bits_of(float value) { return __builtin_bit_cast(std::uint32_t, value); }
inline UintVec bits_of(Vec value) { return reinterpret_cast<UintVec>(value); }
inline float value_of(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline Vec value_of(UintVec bits) { return reinterpret_cast<Vec>(bits); }

/// To the nearest f16, ties to even; a float or a vector of them.
template <class V>
V round_to_f16(V x) {
  const auto bits = bits_of(x);
  const auto sign = bits & 0x80000000U;
  const V magnitude = value_of(bits ^ sign);
  const V normal = value_of((bits_of(magnitude) + 0xfffU + ((bits >> 13) & 1U)) & 0xffffe000U);
  const V subnormal = (magnitude + 0.5f) - 0.5f;  // the last bit of 0.5 is that of f16's subnormals
  V rounded = magnitude < 0x1p-14f ? subnormal : normal;
  rounded = rounded > 65504.0f ? normal * 0x1p127f : rounded;  // infinity
  return value_of(bits_of(rounded) | sign);
}

/// The f16 of a value that round_to_f16() has returned.
std::uint16_t f16_bits(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t subnormal = static_cast<std::uint32_t>(value_of(magnitude) * 0x1p24f);
  const std::uint32_t normal = (magnitude >> 13) - (112U << 10);  // from a bias of 127 to one of 15
  return static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | (value_of(magnitude) < 0x1p-14f ? subnormal : normal));
}

// The types of weights: how they are stored, and what an operation on them keeps of its result.

struct F32 {
  using Plain = std::int32_t;
  using Bits = UnalignedInt32;
  static constexpr std::int32_t kInfinity = 0x7f800000;
  static constexpr float kReciprocalOf = 1e-30f;  // smaller magnitudes have no reciprocal
  static float widen(std::int32_t bits) { return __builtin_bit_cast(float, bits); }
  static Vec load(const Bits* from) { return *reinterpret_cast<const UnalignedVec*>(from); }
  template <class V>
  static V round(V x) {
    return x;
  }
};

struct F16 {
  using Plain = std::int16_t;
  using Bits = UnalignedInt16;
  static constexpr std::int32_t kInfinity = 0x7c00;
  static constexpr float kReciprocalOf = 1e-5f;
  static constexpr float kExponentShift = 0x1p112f;  // as in f16_to_f32()
  static float widen(std::int32_t bits) {
    const float magnitude = value_of((static_cast<std::uint32_t>(bits) & 0x7fffU) << 13) * kExponentShift;
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
  static Vec load(const Bits* from) {
    const UintVec bits = __builtin_convertvector(*reinterpret_cast<const UnalignedHalf*>(from), UintVec);
    const Vec magnitude = value_of((bits & 0x7fffU) << 13) * kExponentShift;
    return value_of(bits_of(magnitude) | (bits & 0x8000U) << 16);
  }
  template <class V>
  static V round(V x) {
    return round_to_f16(x);
  }
};

struct Bf16 {
  using Plain = std::int16_t;
  using Bits = UnalignedInt16;
  static constexpr std::int32_t kInfinity = 0x7f80;
  static constexpr float kReciprocalOf = 1e-30f;
  static float widen(std::int32_t bits) { return value_of(static_cast<std::uint32_t>(bits) << 16); }
  static Vec load(const Bits* from) {
    return value_of(__builtin_convertvector(*reinterpret_cast<const UnalignedHalf*>(from), UintVec) << 16);
  }
  template <class V>
  static V round(V x) {
    const auto bits = bits_of(x);
    return value_of((bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U);
  }
};

/// The largest magnitude of either sign in a group, as bits: integers order like the numbers they stand for.
struct Extremes {
  std::int32_t positive;
  std::int32_t negative;
  std::int32_t magnitude() const { return positive > negative ? positive : negative; }
};

template <class T, int kGroup>
Extremes extremes_of(const typename T::Bits* w) {
  using Bits = typename T::Plain;
  constexpr auto kSign = static_cast<Bits>(std::int64_t{1} << (8 * sizeof(Bits) - 1));
  Bits positive = 0;
  Bits negative = 0;
  for (int i = 0; i < kGroup; ++i) {
    const Bits bits = w[i];
    const auto flipped = static_cast<Bits>(bits ^ kSign);
    positive = bits > positive ? bits : positive;
    negative = flipped > negative ? flipped : negative;
  }
  return {positive, negative};
}

inline float magnitude_of(float value) { return value < 0 ? -value : value; }

/// Keeps a scale away from zero, by `least`; it keeps its sign.
inline float away_from_zero(float scale, float least) {
  if (scale < 0) return scale < -least ? scale : -least;
  return scale > least ? scale : least;
}

inline Vec clipped(Vec x) {
  x = x > kHighest ? splat(kHighest) : x;
  return x < kLowest ? splat(kLowest) : x;
}

/// Rounds values in [-8, 7] and stores them as they go into words: plus 8.
inline void store_codes(Vec x, std::uint8_t* codes) {
  const IntVec code = reinterpret_cast<IntVec>(x + (kWhole - kLowest)) & 15;
  *reinterpret_cast<LooseByteVec*>(codes) = __builtin_convertvector(code, ByteVec);
}

/// Eight codes to a word, the first one lowest.
template <int kGroup>
void store_words(const std::uint8_t* codes, std::uint32_t* words) {
  for (int i = 0; i < kGroup / 8; ++i) {
    std::uint64_t x;
    __builtin_memcpy(&x, codes + 8 * i, sizeof x);
    x = (x | x >> 4) & 0x00ff00ff00ff00ffU;
    x = (x | x >> 8) & 0x0000ffff0000ffffU;
    words[i] = static_cast<std::uint32_t>(x | x >> 16);
  }
}

/// q = clip(round(w / scale)), where the quotient is first rounded to the weights' type.
template <class T, int kGroup>
void quotients(const typename T::Bits* w, float scale, std::uint32_t* words) {
  std::uint8_t codes[kGroup];
  for (int i = 0; i < kGroup; i += kLanes) store_codes(clipped(T::round(T::load(w + i) / scale)), codes + i);
  store_words<kGroup>(codes, words);
}

/// The same for bf16 weights and an f16 scale, the quotient in fp32, without dividing. Such a quotient is half way
/// between integers or at least 2^-12 away from there (a scale has 11 bits, and a weight that is not far below it ends
/// no lower than it), so rounding to multiples of 2^-13 takes away the error of the product and decides nothing.
template <int kGroup>
void f32_quotients(const Bf16::Bits* w, float scale, std::uint32_t* words) {
  constexpr float kGrid = 1536.0f;  // 1.5 * 2^10: adding it rounds to multiples of 2^-13
  const float inverse = 1.0f / scale;
  std::uint8_t codes[kGroup];
  for (int i = 0; i < kGroup; i += kLanes) {
    const Vec quotient = (Bf16::load(w + i) * inverse + kGrid) - kGrid;
    store_codes(clipped(quotient), codes + i);
  }
  store_words<kGroup>(codes, words);
}

template <int kGroup>
void f32_quotients(const UnalignedInt32* w, float scale, std::uint32_t* words) {
  quotients<F32, kGroup>(w, scale, words);
}

/// Scales by the extreme value: it becomes -8. False when a weight or the scale is not finite.
template <class T, int kGroup>
bool rtn_group(const typename T::Bits* w, std::uint32_t* words, std::uint16_t* scale_bits) {
  const Extremes extremes = extremes_of<T, kGroup>(w);
  if (extremes.magnitude() >= T::kInfinity) return false;
  const float size = round_to_f16(T::round(T::widen(extremes.magnitude()) / 8.0f));
  if (size > 65504.0f) return false;
  const float scale = away_from_zero(extremes.negative > extremes.positive ? size : -size, round_to_f16(kLeastScale));
  *scale_bits = f16_bits(scale);
  if constexpr (__is_same(T, F16)) {
    quotients<T, kGroup>(w, scale, words);
  } else {
    f32_quotients<kGroup>(w, scale, words);
  }
  return true;
}

template <class T>
float reciprocal(float x) {
  return magnitude_of(x) < T::kReciprocalOf ? 0.0f : T::round(1.0f / x);
}

/// A group's largest element by magnitude, the first of equals.
template <class T>
float leading_element(const typename T::Bits* w, const Extremes& extremes) {
  const float magnitude = T::widen(extremes.magnitude());
  if (extremes.positive != extremes.negative) return extremes.positive > extremes.negative ? magnitude : -magnitude;
  for (;; ++w) {
    const float value = T::widen(*w);
    if (magnitude_of(value) == magnitude) return value;
  }
}

/// The sum of squared errors under a scale whose inverse is `inverse`, times importance where there is one.
template <class T, int kGroup>
float loss_of(const float* w, const float* importance, float inverse, float scale) {
  constexpr int kParts = kSums / kLanes;
  Vec sum[kParts] = {};
  for (int i = 0; i < kGroup; i += kSums) {
    for (int part = 0; part < kParts; ++part) {
      const int at = i + part * kLanes;
      const Vec weight = load(w + at);
      const Vec level = clipped((T::round(weight * inverse) + kWhole) - kWhole);
      const Vec error = T::round(T::round(level * scale) - weight);
      const Vec square = error * error;
      sum[part] += importance == nullptr ? square : square * load(importance + at);
    }
  }
  float sums[kSums];
  for (int part = 0; part < kParts; ++part) store(sums + part * kLanes, sum[part]);
  float loss = 0;
  for (int lane = 0; lane < kSumLanes; ++lane) {
    loss += ((sums[lane] + sums[lane + 8]) + sums[lane + 16]) + sums[lane + 24];
  }
  return loss;
}

/// What stands in for unknown importance: |w| + sqrt(sum of w^2 / 32), in the weights' type.
template <class T, int kGroup>
void importance_from_weights(const float* w, float* importance) {
  float sums[kSums] = {};
  for (int i = 0; i < kGroup; ++i) sums[i % kSums] += T::round(w[i] * w[i]);
  float sum = 0;
  for (int lane = 0; lane < kSumLanes; ++lane) {
    sum += ((sums[lane] + sums[lane + 8]) + sums[lane + 16]) + sums[lane + 24];
  }
  const float typical = T::round(__builtin_sqrtf(T::round(T::round(sum) / 32.0f)));
  for (int i = 0; i < kGroup; ++i) importance[i] = T::round(magnitude_of(w[i]) + typical);
}

/// The scale that the search settles on. Scales that repeat, as many do in bf16, have their turn once.
template <class T, int kGroup>
float best_scale(const float* w, const float* importance, float leading) {
  const float unit = reciprocal<T>(leading);
  const float first = T::round(kLowest * unit);
  float best = reciprocal<T>(first);
  float least_loss = loss_of<T, kGroup>(w, importance, first, best);
  float previous = first;
  for (int i = -kScaleSteps; i <= kScaleSteps; ++i) {
    const auto factor = static_cast<float>(-(8 - 0.01 * i));
    const float inverse = T::round(factor * unit);
    if (i == 0 || inverse == previous || inverse == first) continue;
    previous = inverse;
    const float scale = reciprocal<T>(inverse);
    const float loss = loss_of<T, kGroup>(w, importance, inverse, scale);
    if (loss < least_loss) {
      least_loss = loss;
      best = scale;
    }
  }
  return best;
}

/// False when a weight or the scale is not finite.
template <class T, int kGroup>
bool search_group(const typename T::Bits* w, const float* importance, bool from_weights, std::uint32_t* words,
                  std::uint16_t* scale_bits) {
  const Extremes extremes = extremes_of<T, kGroup>(w);
  if (extremes.magnitude() >= T::kInfinity) return false;
  alignas(kVectorBytes) float wide[kGroup];
  for (int i = 0; i < kGroup; i += kLanes) store(wide + i, T::load(w + i));
  alignas(kVectorBytes) float stand_in[kGroup];
  if (from_weights) {
    importance_from_weights<T, kGroup>(wide, stand_in);
    importance = stand_in;
  }
  float scale = best_scale<T, kGroup>(wide, importance, leading_element<T>(w, extremes));
  scale = away_from_zero(scale, T::round(kLeastScale));
  const float stored = round_to_f16(scale);
  if (magnitude_of(stored) > 65504.0f) return false;
  *scale_bits = f16_bits(stored);
  quotients<T, kGroup>(w, scale, words);
  return true;
}

template <class T, int kGroup>
bool quantize_row(const QuantizeRow& row) {
  const auto* const w = static_cast<const typename T::Bits*>(row.weights);
  for (std::int64_t g = 0; g < row.groups; ++g) {
    const auto* const from = w + g * kGroup;
    std::uint32_t* const words = row.words + g * (kGroup / 8);
    const float* const importance = row.importance == nullptr ? nullptr : row.importance + g * kGroup;
    const bool from_weights = row.importance != nullptr && row.from_weights[g] != 0;
    const bool done = row.search ? search_group<T, kGroup>(from, importance, from_weights, words, row.scales + g)
                                 : rtn_group<T, kGroup>(from, words, row.scales + g);
    if (!done) return false;
  }
  return true;
}

template <class T>
bool quantize_row_in_groups(const QuantizeRow& row) {
  switch (row.group) {
    case 32:
      return quantize_row<T, 32>(row);
    case 64:
      return quantize_row<T, 64>(row);
    default:
      return quantize_row<T, kMostGroup>(row);
  }
}

}  // namespace

bool quantize(const QuantizeRow& row) {
  switch (row.dtype) {
    case DType::f32:
      return quantize_row_in_groups<F32>(row);
    case DType::f16:
      return quantize_row_in_groups<F16>(row);
    default:
      return quantize_row_in_groups<Bf16>(row);
  }
}

}  // namespace reap::REAP_ISA
