#include "kernels/cpu/vector_kernels.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace reap::REAP_ISA {
namespace {

using DoubleVec = double __attribute__((vector_size(kVectorBytes)));
using HalfVec = float __attribute__((vector_size(kVectorBytes / 2)));

// Sums are taken in kStep lanes (element i in lane i mod kStep) and a tree over them: the same order for every build.
constexpr int kStep = 16;
constexpr int kVecs = kStep / kLanes;
constexpr int kDoubleLanes = kLanes / 2;

/// A sum in fp64 of float values, a vector at a time.
struct LaneSum {
  DoubleVec part[2 * kVecs] = {};

  double total() const {
    double lanes[kStep];
    __builtin_memcpy(lanes, part, sizeof lanes);
    for (int half = kStep / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    return lanes[0];
  }
};

/// Half `half` of a vector in fp64.
inline DoubleVec widen(Vec x, int half) {
  HalfVec piece;
  __builtin_memcpy(&piece, reinterpret_cast<const char*>(&x) + half * (kVectorBytes / 2), sizeof piece);
  return __builtin_convertvector(piece, DoubleVec);
}

/// e^(x - max) in the first `count` lanes, all of them when there are more; zero in the others, whatever is there.
inline Vec exp_below(Vec x, float max, std::int64_t count) {
  const Vec e = exp_nonpositive(x - max);
  if (count >= kLanes) return e;
  IntVec lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  const IntVec keep = lane < static_cast<std::int32_t>(count);
  return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(e) & keep);
}

float max_of_lanes(Vec x) {
  float lanes[kLanes];
  store(lanes, x);
  float max = lanes[0];
  for (int lane = 1; lane < kLanes; ++lane) max = lanes[lane] > max ? lanes[lane] : max;
  return max;
}

/// NaN is passed over; -infinity when nothing else is there.
float max_of_piece(const float* x, std::int64_t count) {
  constexpr int kAtOnce = 4;  // vectors: a maximum waits for the one before it
  const Vec lowest = splat(-__builtin_inff());
  Vec best[kAtOnce] = {lowest, lowest, lowest, lowest};
  std::int64_t i = 0;
  for (; i + kAtOnce * kLanes <= count; i += kAtOnce * kLanes) {
    for (int part = 0; part < kAtOnce; ++part) {
      const Vec value = load(x + i + part * kLanes);
      best[part] = value > best[part] ? value : best[part];
    }
  }
  for (int part = 1; part < kAtOnce; ++part) best[0] = best[part] > best[0] ? best[part] : best[0];
  float max = max_of_lanes(best[0]);
  for (; i < count; ++i) max = x[i] > max ? x[i] : max;
  return max;
}

}  // namespace

// The piece that raised the maximum last holds its first place.
float max_of(const float* x, std::int64_t count, std::int64_t* place) {
  constexpr std::int64_t kPiece = 4096;
  float max = -__builtin_inff();
  std::int64_t piece = 0;
  for (std::int64_t first = 0; first < count; first += kPiece) {
    const float candidate = max_of_piece(x + first, count - first < kPiece ? count - first : kPiece);
    if (candidate > max) {
      max = candidate;
      piece = first;
    }
  }
  std::int64_t at = piece;
  while (at < count && x[at] != max) ++at;
  *place = at < count ? at : 0;
  return max;
}

double exp_sum(const float* x, std::int64_t count, float max) {
  LaneSum sum;
  Vec finite[kVecs] = {};  // stays zero
  const auto add = [&](const float* from, std::int64_t left) {
    for (int vec = 0; vec < kVecs; ++vec) {
      const Vec value = load(from + vec * kLanes);
      finite[vec] += value * 0.0f;
      const Vec e = exp_below(value, max, left - vec * kLanes);
      for (int half = 0; half < 2; ++half) sum.part[2 * vec + half] += widen(e, half);
    }
  };
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) add(x + i, kStep);
  if (i < count) {
    float rest[kStep] = {};
    for (int lane = 0; i + lane < count; ++lane) rest[lane] = x[i + lane];
    add(rest, count - i);
  }
  double broken = 0;
  for (const Vec& part : finite) {
    for (int lane = 0; lane < kLanes; ++lane) broken += static_cast<double>(part[lane]);
  }
  return sum.total() + broken;
}

void divergence(const float* p, float p_max, const float* q, float q_max, std::int64_t count, double shift,
                double scale, double* kl, double* overlap) {
  LaneSum distance, common;
  const auto add = [&](const float* p_from, const float* q_from, std::int64_t left) {
    for (int vec = 0; vec < kVecs; ++vec) {
      const Vec p_value = load(p_from + vec * kLanes);
      const Vec q_value = load(q_from + vec * kLanes);
      const Vec a = exp_below(p_value, p_max, left - vec * kLanes);
      const Vec b = exp_below(q_value, q_max, left - vec * kLanes);
      for (int half = 0; half < 2; ++half) {
        const int part = 2 * vec + half;
        const DoubleVec weight = widen(a, half);
        const DoubleVec other = widen(b, half) * scale;
        distance.part[part] += weight * (widen(p_value, half) - widen(q_value, half) - shift);
        common.part[part] += weight < other ? weight : other;
      }
    }
  };
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) add(p + i, q + i, kStep);
  if (i < count) {
    float p_rest[kStep] = {};
    float q_rest[kStep] = {};
    for (int lane = 0; i + lane < count; ++lane) {
      p_rest[lane] = p[i + lane];
      q_rest[lane] = q[i + lane];
    }
    add(p_rest, q_rest, count - i);
  }
  *kl = distance.total();
  *overlap = common.total();
}

}  // namespace reap::REAP_ISA
