#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/moments.hpp"

// Sums of products of channels. An element is one chain of fused multiplications and additions over the rows in their
// order, whatever the width of the registers.
namespace reap::REAP_ISA {
namespace {

constexpr int kDoubleLanes = kLanes / 2;
// Sums that are held in registers at a time: kRows channels of one panel with kVectors registers of the other.
constexpr int kVectors = 2;
constexpr int kRows = kVectorBytes == 64 ? 8 : 4;
constexpr auto kPanel = static_cast<int>(kMomentPanel);
static_assert(kPanel % (kVectors * kLanes) == 0 && kPanel % kRows == 0 && kPanel % kDoubleLanes == 0);

using DoubleVec = double __attribute__((vector_size(kVectorBytes)));
using LongVec = std::int64_t __attribute__((vector_size(kVectorBytes)));
using LooseLongs = std::int64_t __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
using LooseHalfVec = float __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));

}  // namespace

void moment_tile(const float* a, const float* b, std::int64_t rows, float* sums) {
  for (int i = 0; i < kPanel; i += kRows) {
    for (int j = 0; j < kPanel; j += kVectors * kLanes) {
      Vec sum[kRows][kVectors] = {};
      for (std::int64_t row = 0; row < rows; ++row) {
        Vec right[kVectors];
        for (int v = 0; v < kVectors; ++v) right[v] = load(b + row * kPanel + j + v * kLanes);
        for (int r = 0; r < kRows; ++r) {
          const Vec left = splat(a[row * kPanel + i + r]);
          for (int v = 0; v < kVectors; ++v) sum[r][v] += left * right[v];
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) store(sums + (i + r) * kPanel + j + v * kLanes, sum[r][v]);
      }
    }
  }
}

bool add_moments(const float* from, std::int64_t* sums) {
  constexpr double kUnits = static_cast<double>(std::int64_t{1} << kMomentFractionBits);
  constexpr double kRound = 0x1.8p52;  // adding it rounds to an integer
  constexpr double kWhole = 0x1p51;    // a float's multiple of that size is an integer
  constexpr auto kEnd = static_cast<double>(kMomentEnd);
  LongVec bad{};
  for (int i = 0; i < kPanel; i += kDoubleLanes) {
    const DoubleVec scaled =
        __builtin_convertvector(*reinterpret_cast<const LooseHalfVec*>(from + i), DoubleVec) * kUnits;
    const DoubleVec magnitude = scaled < 0.0 ? -scaled : scaled;
    const DoubleVec rounded = magnitude < kWhole ? (scaled + kRound) - kRound : scaled;
    const LongVec fits = magnitude < kEnd;  // not so of NaN
    LooseLongs& to = *reinterpret_cast<LooseLongs*>(sums + i);
    const LongVec sum = to + __builtin_convertvector(fits ? rounded : DoubleVec{}, LongVec);
    bad |= ~fits | (sum >= kMomentEnd) | (sum <= -kMomentEnd);
    to = sum;
  }
  std::int64_t any = 0;
  for (int lane = 0; lane < kDoubleLanes; ++lane) any |= bad[lane];
  return any == 0;
}

}  // namespace reap::REAP_ISA
