#include <algorithm>
#include <limits>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

// AutoRound's 4-bit rounding, operation by operation as in kernels/cpu/vector_quantize.cpp: every operation is one of
// those that round on their own (__fmul_rn, ...), so that the compiler fuses none of them.
namespace reap::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 16;  // warps walk on from there
constexpr unsigned kAll = 0xffffffffU;
constexpr int kMostPerLane = 4;  // of a group of 128
constexpr int kSumLanes = 8;
constexpr int kScaleSteps = 90;
constexpr int kFactors = 2 * kScaleSteps + 1;
constexpr float kLowest = -8.0f;
constexpr float kHighest = 7.0f;
constexpr float kLeastScale = 1e-5f;
constexpr float kMostScale = 65504.0f;

// The types that weights are stored in, and what an operation on them keeps of its result.

struct F32 {
  using Stored = float;
  static constexpr float kReciprocalOf = 1e-30f;
  static constexpr bool kRoundsQuotients = false;  // in rtn, of a weight and a scale in f16
  __device__ static float round(float x) { return x; }
};

struct F16 {
  using Stored = __half;
  static constexpr float kReciprocalOf = 1e-5f;
  static constexpr bool kRoundsQuotients = true;
  __device__ static float round(float x) { return __half2float(__float2half_rn(x)); }
};

struct Bf16 {
  using Stored = __nv_bfloat16;
  static constexpr float kReciprocalOf = 1e-30f;
  static constexpr bool kRoundsQuotients = false;
  __device__ static float round(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }
};

struct F8 : Bf16 {
  using Stored = std::uint8_t;
};

/// A weight on the device, and what becomes of it.
struct Task {
  const void* weights;
  const float* scale_inv;
  std::int64_t rows, cols;
  bool search;
  const float* importance;           // [cols] or null
  const std::uint8_t* from_weights;  // [cols / group]
  std::uint32_t* words;
  std::uint16_t* scales;
  long long* bad_row;
};

template <class T>
__device__ float value_at(const Task& task, std::int64_t row, std::int64_t col) {
  const auto* const from = static_cast<const typename T::Stored*>(task.weights) + row * task.cols + col;
  if constexpr (sizeof(typename T::Stored) == 1) {
    const std::int64_t scale_cols = (task.cols + kScaleBlock - 1) / kScaleBlock;
    const float scale = task.scale_inv[row / kScaleBlock * scale_cols + col / kScaleBlock];
    return T::round(__fmul_rn(f8_to_float(*from), scale));
  } else {
    return as_float(*from);
  }
}

__device__ float warp_max(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAll, value, distance));
  }
  return value;
}

/// The lanes' sums in the order of the package: those of 8 lanes, then the lanes.
__device__ float ordered_sum(float sum) {
  const int lane = static_cast<int>(threadIdx.x) % kSumLanes;
  float of_lane = __shfl_sync(kAll, sum, lane);
  for (int part = 1; part < kWarp / kSumLanes; ++part) {
    of_lane = __fadd_rn(of_lane, __shfl_sync(kAll, sum, part * kSumLanes + lane));
  }
  float total = 0;
  for (int i = 0; i < kSumLanes; ++i) total = __fadd_rn(total, __shfl_sync(kAll, of_lane, i));
  return total;
}

__device__ float clipped(float x) {
  x = x > kHighest ? kHighest : x;
  return x < kLowest ? kLowest : x;
}

__device__ float away_from_zero(float scale, float least) {
  if (scale < 0) return scale < -least ? scale : -least;
  return scale > least ? scale : least;
}

template <class T>
__device__ float reciprocal(float x) {
  return fabsf(x) < T::kReciprocalOf ? 0.0f : T::round(__fdiv_rn(1.0f, x));
}

/// A group's weights, 32 apart in each lane of a warp.
template <class T, int kPerLane>
struct Group {
  float w[kPerLane];
  float importance[kPerLane];

  /// The largest magnitude of either sign; NaN-free. False when a weight is not finite.
  __device__ bool extremes(float& positive, float& negative) const {
    bool finite = true;
    positive = negative = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      finite = finite && isfinite(w[i]);
      positive = fmaxf(positive, w[i]);
      negative = fmaxf(negative, -w[i]);
    }
    positive = warp_max(positive);
    negative = warp_max(negative);
    return __all_sync(kAll, finite) != 0;
  }

  /// The first weight of magnitude `size`.
  __device__ float first_of(float size) const {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const unsigned lanes = __ballot_sync(kAll, fabsf(w[i]) == size);
      if (lanes != 0) return __shfl_sync(kAll, w[i], __ffs(static_cast<int>(lanes)) - 1);
    }
    return size;
  }

  __device__ void set_importance_from_weights() {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sum = __fadd_rn(sum, T::round(__fmul_rn(w[i], w[i])));
    const float total = T::round(ordered_sum(sum));
    const float typical = T::round(__fsqrt_rn(T::round(__fdiv_rn(total, 32.0f))));
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) importance[i] = T::round(__fadd_rn(fabsf(w[i]), typical));
  }

  __device__ float loss(float inverse, float scale) const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const float level = clipped(rintf(T::round(__fmul_rn(w[i], inverse))));
      const float error = T::round(__fsub_rn(T::round(__fmul_rn(level, scale)), w[i]));
      sum = __fadd_rn(sum, __fmul_rn(__fmul_rn(error, error), importance[i]));
    }
    return ordered_sum(sum);
  }

  __device__ float best_scale(float leading, const float* factors) const {
    const float unit = reciprocal<T>(leading);
    const float first = T::round(__fmul_rn(kLowest, unit));
    float best = reciprocal<T>(first);
    float least = loss(first, best);
    float previous = first;
    for (int i = 0; i < kFactors; ++i) {
      const float inverse = T::round(__fmul_rn(factors[i], unit));
      if (i == kScaleSteps || inverse == previous || inverse == first) continue;
      previous = inverse;
      const float scale = reciprocal<T>(inverse);
      const float reached = loss(inverse, scale);
      if (reached < least) {
        least = reached;
        best = scale;
      }
    }
    return best;
  }

  template <bool kRounds>
  __device__ void store_words(float scale, std::uint32_t* words) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      float quotient = __fdiv_rn(w[i], scale);
      if (kRounds) quotient = T::round(quotient);
      const auto code = static_cast<std::uint32_t>(static_cast<int>(rintf(clipped(quotient))) + 8);
      std::uint32_t word = code << (lane % kNibbles * 4);
      for (int distance = 1; distance < kNibbles; distance *= 2) word |= __shfl_xor_sync(kAll, word, distance);
      if (lane % kNibbles == 0) words[(i * kWarp + lane) / kNibbles] = word;
    }
  }
};

template <class T, int kPerLane>
__device__ bool quantize_group(const Task& task, std::int64_t row, std::int64_t g, const float* factors) {
  constexpr int kGroup = kPerLane * kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t groups = task.cols / kGroup;
  Group<T, kPerLane> group;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const std::int64_t col = g * kGroup + i * kWarp + lane;
    group.w[i] = value_at<T>(task, row, col);
    group.importance[i] = task.importance == nullptr ? 1.0f : task.importance[col];
  }
  float positive, negative;
  if (!group.extremes(positive, negative)) return false;
  std::uint32_t* const words = task.words + (row * groups + g) * (kGroup / kNibbles);
  std::uint16_t* const stored = task.scales + row * groups + g;
  const float size = fmaxf(positive, negative);
  if (!task.search) {
    const float raw = __half2float(__float2half_rn(T::round(__fdiv_rn(size, 8.0f))));
    const float scale = away_from_zero(negative > positive ? raw : -raw, __half2float(__float2half_rn(kLeastScale)));
    if (fabsf(scale) > kMostScale) return false;
    if (lane == 0) *stored = __half_as_ushort(__float2half_rn(scale));
    group.template store_words<T::kRoundsQuotients>(scale, words);
    return true;
  }
  if (task.importance != nullptr && task.from_weights[g] != 0) group.set_importance_from_weights();
  const float leading = positive == negative ? group.first_of(size) : positive > negative ? size : -size;
  const float scale = away_from_zero(group.best_scale(leading, factors), T::round(kLeastScale));
  const __half half_scale = __float2half_rn(scale);
  if (fabsf(__half2float(half_scale)) > kMostScale) return false;
  if (lane == 0) *stored = __half_as_ushort(half_scale);
  group.template store_words<true>(scale, words);
  return true;
}

/// A warp takes a group at a time.
template <class T, int kPerLane>
__global__ void quantize_groups(Task task) {
  __shared__ float factors[kFactors];
  for (int i = static_cast<int>(threadIdx.x); i < kFactors; i += kThreads) {
    factors[i] = static_cast<float>(-__dsub_rn(8.0, __dmul_rn(0.01, i - kScaleSteps)));
  }
  __syncthreads();
  const std::int64_t groups = task.cols / (kPerLane * kWarp);
  const std::int64_t step = std::int64_t{gridDim.x} * (kThreads / kWarp);
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp; i < task.rows * groups;
       i += step) {
    const std::int64_t row = i / groups;
    if (!quantize_group<T, kPerLane>(task, row, i % groups, factors)) {
      atomicMin(task.bad_row, static_cast<long long>(row));
    }
  }
}

template <class T>
void run_quantize(const Launch& launch, const Task& task, std::int64_t group) {
  const std::int64_t warps = task.rows * (task.cols / group);
  const int blocks = static_cast<int>(std::min(ceil_div(warps, kThreads / kWarp), kMaxBlocks));
  switch (group) {
    case 32:
      quantize_groups<T, 1><<<blocks, kThreads, 0, launch.stream>>>(task);
      break;
    case 64:
      quantize_groups<T, 2><<<blocks, kThreads, 0, launch.stream>>>(task);
      break;
    default:
      quantize_groups<T, kMostPerLane><<<blocks, kThreads, 0, launch.stream>>>(task);
  }
  REAP_CUDA_LAUNCHED();
}

void run_quantize(const Launch& launch, const Task& task, DType dtype, std::int64_t group) {
  switch (dtype) {
    case DType::f32:
      return run_quantize<F32>(launch, task, group);
    case DType::f16:
      return run_quantize<F16>(launch, task, group);
    case DType::bf16:
      return run_quantize<Bf16>(launch, task, group);
    case DType::f8_e4m3:
      return run_quantize<F8>(launch, task, group);
    default:
      fail_at(ExitCode::bug, "a weight of type " + std::string(name_of(dtype)), __FILE__, __LINE__);
  }
}

template <class T>
T* uploaded(const Launch& launch, const T* from_host, std::int64_t count) {
  T* const to = launch.scratch->take<T>(count);
  launch.staging->upload(launch.stream, to, from_host, static_cast<std::size_t>(count) * sizeof(T));
  return to;
}

}  // namespace

void quantize(const Launch& launch, const WeightSource& source, const QuantizeSpec& spec, const Importance* importance,
              std::uint32_t* words, std::uint16_t* scales) {
  REAP_CUDA_REQUIRE(spec.group == 32 || spec.group == 64 || spec.group == 128, "groups of another size");
  REAP_CUDA_REQUIRE(source.cols > 0 && source.cols % spec.group == 0, "inputs that are not whole groups");
  if (source.rows == 0) return;
  const std::int64_t elements = source.rows * source.cols;
  Task task{};
  task.weights = uploaded(launch, source.data, elements * static_cast<std::int64_t>(size_of(source.dtype)));
  if (source.dtype == DType::f8_e4m3) {
    task.scale_inv =
        uploaded(launch, source.scale_inv, ceil_div(source.rows, kScaleBlock) * ceil_div(source.cols, kScaleBlock));
  }
  task.rows = source.rows;
  task.cols = source.cols;
  task.search = spec.rounding != Rounding::rtn;
  if (importance != nullptr) {
    task.importance = uploaded(launch, importance->factor.data(), source.cols);
    task.from_weights = uploaded(launch, importance->from_weights.data(), source.cols / spec.group);
  }
  long long bad_row = std::numeric_limits<long long>::max();
  task.bad_row = uploaded(launch, &bad_row, 1);
  task.words = launch.scratch->take<std::uint32_t>(elements / kNibbles);
  task.scales = launch.scratch->take<std::uint16_t>(elements / spec.group);
  run_quantize(launch, task, source.dtype, spec.group);

  const auto count = static_cast<std::size_t>(elements);
  launch.staging->download(launch.stream, words, task.words, count / kNibbles * sizeof *words);
  launch.staging->download(launch.stream, scales, task.scales,
                           count / static_cast<std::size_t>(spec.group) * sizeof *scales);
  launch.staging->download(launch.stream, &bad_row, task.bad_row, sizeof bad_row);
  launch.staging->finish(launch.stream);
  if (bad_row < source.rows) {
    throw Error(ExitCode::numerics, "row " + std::to_string(bad_row) +
                                        " holds a value that is not finite, or too large for a scale in fp16");
  }
}

}  // namespace reap::cuda
