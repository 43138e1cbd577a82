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
constexpr int kScales = 2 * kScaleSteps + 1;
constexpr int kPaddedScales = 192;  // whole vectors, and room for one more
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

template <class T>
Vec reciprocals(Vec x) {
  const Vec magnitude = value_of(bits_of(x) & 0x7fffffffU);
  return magnitude < T::kReciprocalOf ? Vec{} : T::round(1.0f / x);
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

/// What the weights of a lane stand for after rounding: R(clip(rint(R(w * inverse))) * scale).
template <class T>
struct Levels {
  Levels(float inverse_scale, float scale) : inverse{splat(inverse_scale)}, unit{splat(scale)} {}

  Vec operator()(Vec weight) const { return T::round(clipped((T::round(weight * inverse) + kWhole) - kWhole) * unit); }

  Vec inverse;
  Vec unit;
};

/// The same where a register holds the values of all 16 integers. A bf16 weight times an inverse of its group's scales
/// is about 9 at most, so integers can be clipped where they are, in the low bits.
struct TableLevels {
  TableLevels(float inverse_scale, float scale) : inverse{splat(inverse_scale)} {
    float levels[kLanes];
    for (int i = 0; i < kLanes; ++i) levels[i] = static_cast<float>(i < 8 ? i : i - 16);
    values = Bf16::round(load(levels) * scale);
  }

  Vec operator()(Vec weight) const {
    constexpr auto kZero = static_cast<std::int32_t>(__builtin_bit_cast(std::uint32_t, kWhole));
    IntVec integer = reinterpret_cast<IntVec>(Bf16::round(weight * inverse) + kWhole);
    integer = integer < kZero + 7 ? integer : IntVec{} + (kZero + 7);
    integer = integer > kZero - 8 ? integer : IntVec{} + (kZero - 8);
    return __builtin_shuffle(values, integer);  // by the low bits
  }

  Vec inverse;
  Vec values;
};

template <bool kTable, class T>
struct LevelsOf {
  using Type = Levels<T>;
};
template <>
struct LevelsOf<true, Bf16> {
  using Type = TableLevels;
};

/// The sums of squared errors under a scale whose inverse is `inverse`, times importance where there is one: the
/// partial sums of 8 lanes, whose sum in their order is the loss.
template <class T, int kGroup, bool kWeighted>
void losses_of(const float* w, [[maybe_unused]] const float* importance, float inverse, float scale, float* lanes) {
  constexpr int kParts = kSums / kLanes;
  const typename LevelsOf<kLanes == 16, T>::Type levels(inverse, scale);
  Vec sum[kParts] = {};
  for (int i = 0; i < kGroup; i += kSums) {
    for (int part = 0; part < kParts; ++part) {
      const int at = i + part * kLanes;
      const Vec weight = load(w + at);
      const Vec error = T::round(levels(weight) - weight);
      Vec loss = error * error;
      if constexpr (kWeighted) loss *= load(importance + at);
      sum[part] += loss;
    }
  }
  float sums[kSums];
  for (int part = 0; part < kParts; ++part) store(sums + part * kLanes, sum[part]);
  for (int lane = 0; lane < kSumLanes; ++lane) {
    lanes[lane] = ((sums[lane] + sums[lane + 8]) + sums[lane + 16]) + sums[lane + 24];
  }
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

/// What the inverse scales are multiples of: -8, then -(8 - 0.01 i), each in fp32; filled up with more of the first.
struct Factors {
  float of[kPaddedScales];
};
constexpr Factors kFactors = [] {
  Factors factors{};
  for (float& factor : factors.of) factor = kLowest;
  int place = 1;
  for (int i = -kScaleSteps; i <= kScaleSteps; ++i) {
    if (i != 0) factors.of[place++] = static_cast<float>(-(8 - 0.01 * i));
  }
  return factors;
}();

/// The inverse scales to try, each once: many repeat in bf16, and they do so one after the other. @return how many
template <class T>
int inverse_scales(float unit, float* tried) {
  alignas(kVectorBytes) float all[kPaddedScales];
  for (int i = 0; i < kPaddedScales; i += kLanes) store(all + i, T::round(load(kFactors.of + i) * unit));
  tried[0] = all[0];
  int count = 1;
  for (int i = 1; i < kScales; ++i) {
    const bool is_new = (all[i] != all[i - 1]) & (all[i] != all[0]);
    tried[count] = all[i];
    count += static_cast<int>(is_new);
  }
  return count;
}

/// The scale that the search settles on.
template <class T, int kGroup, bool kWeighted>
float best_scale(const float* w, const float* importance, float leading) {
  alignas(kVectorBytes) float inverse[kPaddedScales] = {};
  alignas(kVectorBytes) float scale[kPaddedScales] = {};
  const int count = inverse_scales<T>(reciprocal<T>(leading), inverse);
  for (int i = 0; i < count; i += kLanes) store(scale + i, reciprocals<T>(load(inverse + i)));
  // All sums first: adding up lanes takes long, but many scales' at a time.
  float lanes[kPaddedScales][kSumLanes];
  for (int i = 0; i < count; ++i) {
    losses_of<T, kGroup, kWeighted>(w, importance, inverse[i], scale[i], lanes[i]);
  }
  int best = 0;
  float least = 0;
  for (int i = 0; i < count; ++i) {
    float loss = 0;
    for (int lane = 0; lane < kSumLanes; ++lane) loss += lanes[i][lane];
    if (i > 0 && !(loss < least)) continue;
    best = i;
    least = loss;
  }
  return scale[best];
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
  const float leading = leading_element<T>(w, extremes);
  float scale = importance == nullptr ? best_scale<T, kGroup, false>(wide, nullptr, leading)
                                      : best_scale<T, kGroup, true>(wide, importance, leading);
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
