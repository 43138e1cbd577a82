#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/expert_tiles.hpp"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 256;  // of a block, each with a channel
constexpr int kPlaces = 64;    // of a block

// What atomicAdd takes. Negative numbers add to it as they should: both wrap alike.
using Sum = unsigned long long;
static_assert(sizeof(Sum) == sizeof(std::int64_t));

/// Each square to its nearest integer and the rest, which is exact: integers, so that their order leaves no trace.
template <class Act>
__global__ void add_squares(const __grid_constant__ ExpertTiles groups, int column_tiles, const Act* x,
                            std::int64_t stride, const std::int32_t* row, std::int64_t width, Sum* sums,
                            unsigned long long* bad) {
  constexpr double kUnits = static_cast<double>(std::int64_t{1} << kSquareFractionBits);
  const ExpertTile tile = expert_tile(groups, kPlaces, column_tiles, blockIdx.x);
  const std::int64_t channel = std::int64_t{tile.column} * kThreads + threadIdx.x;
  if (channel >= width) return;
  std::int64_t low = 0, high = 0;
  bool fits = true;
  for (std::int64_t place = tile.slot; place < tile.slot + tile.slots; ++place) {
    const std::int64_t from = row == nullptr ? place : row[place];
    const auto value = static_cast<double>(as_float(x[from * stride + channel]));
    const double square = value * value;
    if (!(square < kSquareLimit)) {
      fits = false;
      continue;
    }
    const double whole = rint(square);
    low += __double2ll_rn((square - whole) * kUnits);
    high += __double2ll_rn(whole);
  }
  Sum* const to = sums + tile.expert * kSquareDigits * width + channel;
  atomicAdd(to, static_cast<Sum>(low));
  atomicAdd(to + width, static_cast<Sum>(high));
  if (!fits) atomicExch(bad, 1ULL);
}

template <class Act>
void run(const Launch& launch, const void* x, std::int64_t stride, const std::int32_t* row,
         std::span<const std::int64_t> start, std::int64_t width, const SquareSums& to) {
  const auto column_tiles = static_cast<int>(ceil_div(width, kThreads));
  for (std::size_t begin = 0; begin + 1 < start.size(); begin += kMostExperts) {
    const std::size_t count = std::min<std::size_t>(kMostExperts, start.size() - 1 - begin);
    const ExpertTiles groups = expert_tiles(start.subspan(begin, count + 1), kPlaces);
    const std::int64_t blocks = std::int64_t{groups.first_tile[count]} * column_tiles;
    if (blocks == 0) continue;
    Sum* const sums = reinterpret_cast<Sum*>(to.sums) + static_cast<std::int64_t>(begin) * kSquareDigits * width;
    add_squares<<<static_cast<unsigned>(blocks), kThreads, 0, launch.stream>>>(
        groups, column_tiles, static_cast<const Act*>(x), stride, row, width, sums,
        reinterpret_cast<unsigned long long*>(to.bad));
    REAP_CUDA_LAUNCHED();
  }
}

}  // namespace

// Bound by HBM: reads each row once.
void accumulate_squares(const Launch& launch, const void* x, std::int64_t stride, const std::int32_t* row,
                        std::span<const std::int64_t> start, std::int64_t width, const SquareSums& to) {
  const auto add = launch.compute == Compute::bf16 ? run<__nv_bfloat16> : run<float>;
  add(launch, x, stride, row, start, width, to);
}

}  // namespace reap::cuda
