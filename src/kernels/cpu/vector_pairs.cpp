#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/fixed128.hpp"
#include "kernels/pairs.hpp"
#include "kernels/squares.hpp"

// Sums over rows of activations, in fp64. A product of two floats is exact there, and a dot product is summed in
// kSumLanes lanes (element i in lane i mod kSumLanes) and a tree over them: the same bits in every build.

namespace reap::REAP_ISA {
namespace {

constexpr int kDoubleLanes = kLanes / 2;
constexpr int kSumLanes = 8;
constexpr int kParts = kSumLanes / kDoubleLanes;
// Rows of a tile of dot products: what keeps its sums and operands in registers.
constexpr int kSide = kVectorBytes == 64 ? 4 : 2;

using DoubleVec = double __attribute__((vector_size(kVectorBytes)));
using LongVec = std::int64_t __attribute__((vector_size(kVectorBytes)));
using LooseLongs = std::int64_t __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
using HalfVec = float __attribute__((vector_size(kVectorBytes / 2)));
using HalfInts = std::int32_t __attribute__((vector_size(kVectorBytes / 2)));
using LooseHalfVec = float __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));
using LooseQuarter = std::uint16_t __attribute__((vector_size(kVectorBytes / 4), aligned(2), may_alias));

inline DoubleVec widen(const float* from) {
  return __builtin_convertvector(*reinterpret_cast<const LooseHalfVec*>(from), DoubleVec);
}
inline DoubleVec widen(const bf16* from) {
  const LooseQuarter bits = *reinterpret_cast<const LooseQuarter*>(from);
  return __builtin_convertvector(reinterpret_cast<HalfVec>(__builtin_convertvector(bits, HalfInts) << 16), DoubleVec);
}

/// pair_index(i, 0, items), which is inline and so not for these files.
std::int64_t row_of_pairs(std::int64_t i, std::int64_t items) { return i * (2 * items - i - 1) / 2; }

double tree_sum(const DoubleVec (&parts)[kParts]) {
  double lanes[kSumLanes];
  __builtin_memcpy(lanes, parts, sizeof lanes);
  for (int half = kSumLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

/// Dot products of kSide rows `a` with kSide rows `b`; where both are the same rows, those with i <= j only.
template <class T, bool kSame>
struct DotTile {
  DoubleVec sum[kSide][kSide][kParts] = {};

  inline void add(const T* const* a, const T* const* b, std::int64_t at) {
    for (int part = 0; part < kParts; ++part) {
      const std::int64_t from = at + part * kDoubleLanes;
      DoubleVec right[kSide];
      for (int j = 0; j < kSide; ++j) right[j] = widen(b[j] + from);
      for (int i = 0; i < kSide; ++i) {
        const DoubleVec left = kSame ? right[i] : widen(a[i] + from);
        for (int j = kSame ? i : 0; j < kSide; ++j) sum[i][j][part] += left * right[j];
      }
    }
  }
};

template <class T>
struct Rows {
  const T* f;
  const std::int32_t* position;
  std::int64_t top_k, width;
  /// The rows of slots [first, first + kSide); after the last slot that one again, for sums that nobody reads.
  inline void take(std::int64_t first, const T* (&rows)[kSide]) const {
    for (std::int64_t i = 0; i < kSide; ++i) rows[i] = f + position[first + i < top_k ? first + i : top_k - 1] * width;
  }
};

/// What is left of rows behind `at`, filled up with zeros.
template <class T>
struct Rest {
  T values[kSide][kSumLanes] = {};
  const T* rows[kSide];
  Rest(const T* const* from, std::int64_t at, std::int64_t width) {
    for (int row = 0; row < kSide; ++row) {
      for (std::int64_t lane = 0; at + lane < width; ++lane) values[row][lane] = from[row][at + lane];
      rows[row] = values[row];
    }
  }
};

/// The dot products of slots from first_i on with those from first_j on; `dots` has pairs i <= j row by row.
template <class T, bool kSame>
void dot_tile(const Rows<T>& in, std::int64_t first_i, std::int64_t first_j, double* dots) {
  const T* a[kSide];
  const T* b[kSide];
  in.take(first_i, a);
  in.take(first_j, b);
  DotTile<T, kSame> tile;
  std::int64_t at = 0;
  for (; at + kSumLanes <= in.width; at += kSumLanes) tile.add(a, b, at);
  if (at < in.width) tile.add(Rest<T>(a, at, in.width).rows, Rest<T>(b, at, in.width).rows, 0);
  for (std::int64_t i = 0; i < kSide && first_i + i < in.top_k; ++i) {
    double* const row = dots + row_of_pairs(first_i + i, in.top_k);
    for (std::int64_t j = kSame ? i : 0; j < kSide && first_j + j < in.top_k; ++j) {
      row[first_j + j] = tree_sum(tile.sum[i][j]);
    }
  }
}

template <class T>
void pair_dots_as(const Rows<T>& in, double* dots) {
  for (std::int64_t i = 0; i < in.top_k; i += kSide) {
    dot_tile<T, true>(in, i, i, dots);
    for (std::int64_t j = i + kSide; j < in.top_k; j += kSide) dot_tile<T, false>(in, i, j, dots);
  }
}

/// Adds elements in fixed point, each rounded to nearest even. One that is not in range adds what does not matter.
template <class T>
void add_fixed_as(const T* from, std::int64_t count, std::int64_t* sums) {
  constexpr double kUnits = static_cast<double>(std::int64_t{1} << kOutputFractionBits);
  constexpr double kRound = 0x1.8p52;  // adding it rounds to an integer
  constexpr double kWhole = 0x1p51;    // a float's multiple of that size is an integer
  constexpr double kLimit = 0x1p62;
  const auto add = [](const T* value, std::int64_t* sum) {
    const DoubleVec scaled = widen(value) * kUnits;
    const DoubleVec magnitude = scaled < 0.0 ? -scaled : scaled;
    const DoubleVec rounded = magnitude < kWhole ? (scaled + kRound) - kRound : scaled;
    const LongVec units = __builtin_convertvector(magnitude < kLimit ? rounded : DoubleVec{}, LongVec);
    LooseLongs& to = *reinterpret_cast<LooseLongs*>(sum);
    to = to + units;
  };
  std::int64_t i = 0;
  for (; i + kDoubleLanes <= count; i += kDoubleLanes) add(from + i, sums + i);
  if (i == count) return;
  T values[kDoubleLanes] = {};
  std::int64_t added[kDoubleLanes] = {};
  for (std::int64_t lane = 0; i + lane < count; ++lane) values[lane] = from[i + lane];
  add(values, added);
  for (std::int64_t lane = 0; i + lane < count; ++lane) sums[i + lane] += added[lane];
}

/// Adds squares in fixed point, each rounded to nearest even: its integer to the high digits, the rest, which is exact
/// and of either sign, to the low ones. @return whether all were in range; others add nothing
template <class T>
bool add_squares_as(const T* from, std::int64_t count, std::int64_t* low, std::int64_t* high) {
  constexpr double kUnits = static_cast<double>(std::int64_t{1} << kSquareFractionBits);
  constexpr double kRound = 0x1.8p52;  // adding it rounds to an integer, which is in the low bits of the sum
  constexpr std::int64_t kRoundBits = __builtin_bit_cast(std::int64_t, kRound);
  LongVec good = ~LongVec{};
  const auto add = [&good](const T* value, std::int64_t* low_sum, std::int64_t* high_sum) {
    const DoubleVec wide = widen(value);
    const DoubleVec square = wide * wide;
    const LongVec fits = square < kSquareLimit;
    good &= fits;
    const DoubleVec term = fits ? square : DoubleVec{};
    const DoubleVec whole = term + kRound;
    const DoubleVec rest = (term - (whole - kRound)) * kUnits + kRound;
    LooseLongs& low_to = *reinterpret_cast<LooseLongs*>(low_sum);
    LooseLongs& high_to = *reinterpret_cast<LooseLongs*>(high_sum);
    low_to = low_to + (reinterpret_cast<LongVec>(rest) - kRoundBits);
    high_to = high_to + (reinterpret_cast<LongVec>(whole) - kRoundBits);
  };
  std::int64_t i = 0;
  for (; i + kDoubleLanes <= count; i += kDoubleLanes) add(from + i, low + i, high + i);
  if (i < count) {
    T values[kDoubleLanes] = {};
    std::int64_t added[2][kDoubleLanes] = {};
    for (std::int64_t lane = 0; i + lane < count; ++lane) values[lane] = from[i + lane];
    add(values, added[0], added[1]);
    for (std::int64_t lane = 0; i + lane < count; ++lane) {
      low[i + lane] += added[0][lane];
      high[i + lane] += added[1][lane];
    }
  }
  bool all = true;
  for (int lane = 0; lane < kDoubleLanes; ++lane) all = all && good[lane] != 0;
  return all;
}

}  // namespace

void pair_dots(const void* f, bool is_bf16, const std::int32_t* position, std::int64_t top_k, std::int64_t width,
               double* dots) {
  if (is_bf16) {
    pair_dots_as<bf16>({static_cast<const bf16*>(f), position, top_k, width}, dots);
  } else {
    pair_dots_as<float>({static_cast<const float*>(f), position, top_k, width}, dots);
  }
}

void add_fixed(const void* from, bool is_bf16, std::int64_t first, std::int64_t count, std::int64_t* sums) {
  if (is_bf16) {
    add_fixed_as(static_cast<const bf16*>(from) + first, count, sums);
  } else {
    add_fixed_as(static_cast<const float*>(from) + first, count, sums);
  }
}

bool add_squares(const void* from, bool is_bf16, std::int64_t first, std::int64_t count, std::int64_t* low,
                 std::int64_t* high) {
  if (is_bf16) return add_squares_as(static_cast<const bf16*>(from) + first, count, low, high);
  return add_squares_as(static_cast<const float*>(from) + first, count, low, high);
}

}  // namespace reap::REAP_ISA
