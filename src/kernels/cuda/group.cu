#include <algorithm>
#include <limits>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

// A stable counting sort. Slots are cut into chunks that follow each other; a place is the start of its expert, plus
// the expert's slots in the chunks before, plus those before it in its own chunk.
namespace reap::cuda {
namespace {

constexpr std::uint32_t kAllLanes = 0xffffffffU;
constexpr int kThreads = 256;
constexpr std::int64_t kLeastChunk = 1024;  // slots
constexpr std::int64_t kMostChunks = 1024;
constexpr std::int64_t kMaxExperts = 8192;  // counters of a chunk in shared memory, beside one for all others

/// The expert of `slot` counted from the first of ours, or `count` for those of others and beyond the end.
__device__ int bucket_of(const std::int32_t* expert, std::int64_t slot, std::int64_t end, std::int32_t first,
                         int count) {
  if (slot >= end) return count;
  const std::int64_t ours = std::int64_t{expert[slot]} - first;
  return ours >= 0 && ours < count ? static_cast<int>(ours) : count;
}

/// in_chunk[expert, chunk] = slots of that expert in that chunk. A block per chunk.
__global__ void count_chunks(const std::int32_t* expert, std::int64_t slots, std::int64_t chunk, std::int32_t first,
                             int count, std::int32_t* in_chunk) {
  extern __shared__ std::int32_t counter[];  // [count + 1]
  for (int e = static_cast<int>(threadIdx.x); e <= count; e += kThreads) counter[e] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * chunk;
  const std::int64_t end = min(begin + chunk, slots);
  for (std::int64_t slot = begin + threadIdx.x; slot < end; slot += kThreads) {
    atomicAdd(counter + bucket_of(expert, slot, end, first, count), 1);
  }
  __syncthreads();
  for (std::int64_t e = threadIdx.x; e < count; e += kThreads) in_chunk[e * gridDim.x + blockIdx.x] = counter[e];
}

/// The sum over this and all lower lanes.
template <class T>
__device__ T warp_inclusive_sum(T value, int lane) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T lower = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += lower;
  }
  return value;
}

/// Makes in_chunk[expert, chunk] the slots of that expert in all chunks before. A block of one warp per expert.
__global__ void sum_chunks(std::int32_t* in_chunk, std::int64_t chunks, std::int64_t* total) {
  const int lane = static_cast<int>(threadIdx.x);
  std::int32_t* const mine = in_chunk + blockIdx.x * chunks;
  std::int32_t sum = 0;
  for (std::int64_t base = 0; base < chunks; base += kWarp) {
    const std::int32_t value = base + lane < chunks ? mine[base + lane] : 0;
    const std::int32_t inclusive = warp_inclusive_sum(value, lane);
    if (base + lane < chunks) mine[base + lane] = sum + inclusive - value;
    sum += __shfl_sync(kAllLanes, inclusive, kWarp - 1);
  }
  if (lane == 0) total[blockIdx.x] = sum;
}

/// start[e] = slots of all experts before e; the last is their number. One warp.
__global__ void sum_experts(const std::int64_t* total, int count, std::int64_t* start) {
  const int lane = static_cast<int>(threadIdx.x);
  long long sum = 0;
  for (int base = 0; base < count; base += kWarp) {
    const long long value = base + lane < count ? total[base + lane] : 0;
    const long long inclusive = warp_inclusive_sum(value, lane);
    if (base + lane < count) start[base + lane] = sum + inclusive - value;
    sum += __shfl_sync(kAllLanes, inclusive, kWarp - 1);
  }
  if (lane == 0) start[count] = sum;
}

/// A block of one warp per chunk walks its slots in order, 32 at a time.
__global__ void place_slots(const std::int32_t* expert, std::int64_t slots, std::int64_t chunk, std::int32_t first,
                            int count, const std::int64_t* start, const std::int32_t* before, std::int32_t* order,
                            std::int32_t* position) {
  extern __shared__ std::int32_t next[];  // [count + 1] the place of each expert's next slot
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t e = lane; e < count; e += kWarp) {
    next[e] = static_cast<std::int32_t>(start[e]) + before[e * gridDim.x + blockIdx.x];
  }
  if (lane == 0) next[count] = 0;
  __syncwarp();
  const std::int64_t begin = blockIdx.x * chunk;
  const std::int64_t end = min(begin + chunk, slots);
  for (std::int64_t base = begin; base < end; base += kWarp) {
    const std::int64_t slot = base + lane;
    const int bucket = bucket_of(expert, slot, end, first, count);
    const std::uint32_t alike = __match_any_sync(kAllLanes, bucket);
    const int lower = __popc(alike & ((1U << lane) - 1));
    const std::int32_t place = next[bucket] + lower;
    __syncwarp();  // all have read before one of each bucket writes
    if (lower == 0) next[bucket] += __popc(alike);
    __syncwarp();
    if (slot >= end) continue;  // in the last round only
    position[slot] = bucket < count ? place : -1;
    if (bucket < count) order[place] = static_cast<std::int32_t>(slot);
  }
}

__global__ void divide_slots(const std::int32_t* slot, std::int64_t slots, std::int32_t top_k, std::int32_t* row) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < slots) row[i] = slot[i] / top_k;
}

}  // namespace

void group_slots(const Launch& launch, const std::int32_t* expert, std::int64_t slots, std::int32_t first,
                 std::int64_t count, std::int32_t* order, std::int32_t* position, std::int64_t* start) {
  REAP_CUDA_REQUIRE(count >= 0 && count <= kMaxExperts && slots <= std::numeric_limits<std::int32_t>::max(),
                    std::to_string(slots) + " slots of " + std::to_string(count) + " experts");
  std::fill(start, start + count + 1, 0);
  if (slots == 0) return;
  const std::int64_t chunk = std::max(kLeastChunk, round_up(ceil_div(slots, kMostChunks), kWarp));
  const std::int64_t chunks = ceil_div(slots, chunk);
  auto* const in_chunk = launch.scratch->take<std::int32_t>(count * chunks);
  auto* const total = launch.scratch->take<std::int64_t>(count);
  auto* const device_start = launch.scratch->take<std::int64_t>(count + 1);
  const auto blocks = static_cast<unsigned>(chunks);
  const auto experts = static_cast<int>(count);
  const std::size_t shared = static_cast<std::size_t>(count + 1) * sizeof(std::int32_t);

  count_chunks<<<blocks, kThreads, shared, launch.stream>>>(expert, slots, chunk, first, experts, in_chunk);
  REAP_CUDA_LAUNCHED();
  if (count > 0) {
    sum_chunks<<<static_cast<unsigned>(experts), kWarp, 0, launch.stream>>>(in_chunk, chunks, total);
    REAP_CUDA_LAUNCHED();
  }
  sum_experts<<<1, kWarp, 0, launch.stream>>>(total, experts, device_start);
  REAP_CUDA_LAUNCHED();
  place_slots<<<blocks, kWarp, shared, launch.stream>>>(expert, slots, chunk, first, experts, device_start, in_chunk,
                                                        order, position);
  REAP_CUDA_LAUNCHED();
  launch.staging->download(launch.stream, start, device_start,
                           static_cast<std::size_t>(count + 1) * sizeof(std::int64_t));
  launch.staging->finish(launch.stream);
}

void slot_rows(const Launch& launch, const std::int32_t* slot, std::int64_t slots, std::int64_t top_k,
               std::int32_t* row) {
  if (slots == 0) return;
  divide_slots<<<static_cast<unsigned>(ceil_div(slots, kThreads)), kThreads, 0, launch.stream>>>(
      slot, slots, static_cast<std::int32_t>(top_k), row);
  REAP_CUDA_LAUNCHED();
}

}  // namespace reap::cuda
