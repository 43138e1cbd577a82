#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/expert_product.hpp"
#include "kernels/cuda/ops.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kNormThreads = 256;

/// Parts are added in ascending order of columns.
__global__ void finish_norms(PartialNorms parts, int column_tiles, float* norm, float* max_abs) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * kNormThreads + threadIdx.x;
  if (slot >= parts.slots) return;
  double sum = 0;
  std::uint32_t highest = 0;
  for (int tile = 0; tile < column_tiles; ++tile) {
    sum += parts.square_sum[tile * parts.slots + slot];
    highest = max(highest, parts.highest[tile * parts.slots + slot]);
  }
  norm[slot] = static_cast<float>(sqrt(sum));
  max_abs[slot] = __uint_as_float(highest);
}

/// The choice may not depend on the slots: a slot's bits would then depend on others.
const ExpertKernelSet& kernel_set(const Launch& launch, const CudaWeight& w1, ExpertKernels wanted) {
  if (launch.compute == Compute::fp32) return kExpertsFp32;
  const bool is_hopper = launch.device.capability == 90;
  REAP_CUDA_REQUIRE(is_hopper || wanted != ExpertKernels::hopper, "wgmma on a device that is no Hopper");
  // Below a tile's width and height the other kernels' smaller tiles waste less.
  const bool is_wide = w1.rows() >= 128 && w1.cols() >= 256;
  const bool take_hopper = wanted == ExpertKernels::automatic ? is_hopper && is_wide : wanted == ExpertKernels::hopper;
  return take_hopper ? kExpertsHopper : kExpertsPortable;
}

void check_shapes(std::span<const std::int64_t> start, std::span<const ExpertWeights> weights) {
  REAP_CUDA_REQUIRE(start.size() == weights.size() + 1, "group starts do not fit the experts");
  const CudaWeight& first = on_device(*weights[0].w1);
  const auto is_like = [&](const Weight* weight, std::int64_t rows, std::int64_t cols) {
    return weight->rows() == rows && weight->cols() == cols && on_device(*weight).dtype() == first.dtype();
  };
  for (const ExpertWeights& expert : weights) {
    REAP_CUDA_REQUIRE(is_like(expert.w1, first.rows(), first.cols()) &&
                          is_like(expert.w3, first.rows(), first.cols()) &&
                          is_like(expert.w2, first.cols(), first.rows()),
                      "experts of different shapes or types");
  }
}

/// The product of input with `like` and weights of its shape, whose pointers are still to be set.
ExpertProduct product_with(const CudaWeight& like, const void* input, std::int64_t input_stride, std::size_t act_size,
                           int tile_columns) {
  const std::size_t element = size_of(like.dtype());
  const auto is_multiple = [](std::uint64_t bytes) { return bytes % 16 == 0; };
  ExpertProduct product{};
  product.input = input;
  product.input_stride = input_stride;
  product.depth = static_cast<std::int32_t>(like.cols());
  product.columns = static_cast<std::int32_t>(like.rows());
  product.column_tiles = static_cast<std::int32_t>(ceil_div(like.rows(), tile_columns));
  product.scale_cols = static_cast<std::int32_t>(like.scale_cols());
  product.input_aligned = is_multiple(reinterpret_cast<std::uintptr_t>(input)) &&
                          is_multiple(static_cast<std::uint64_t>(input_stride) * act_size);
  product.weight_aligned = is_multiple(static_cast<std::uint64_t>(like.cols()) * element);
  return product;
}

void set_weight(ExpertProduct& product, int matrix, std::size_t expert, const Weight& weight) {
  product.weight[matrix][expert] = on_device(weight).data();
  product.scale[matrix][expert] = on_device(weight).scale_inv();
}

}  // namespace

void experts(const Launch& launch, const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
             std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs, const SquareSums& inner) {
  experts(launch, x, row, start, weights, f, norm, max_abs, inner, ExpertKernels::automatic);
}

// Bound by the products: 6 * hidden * inner operations per slot.
void experts(const Launch& launch, const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
             std::span<const ExpertWeights> weights, void* f, float* norm, float* max_abs, const SquareSums& inner,
             ExpertKernels kernels) {
  if (weights.empty() || start.back() == 0) return;
  check_shapes(start, weights);
  const CudaWeight& w1 = on_device(*weights[0].w1);
  const CudaWeight& w2 = on_device(*weights[0].w2);
  const ExpertKernelSet& kernel = kernel_set(launch, w1, kernels);
  const std::size_t act_size = size_of(activation_dtype(launch.compute));
  const std::int64_t slots = start.back();
  const std::int64_t act_stride = round_up(w1.rows(), 8);  // so that rows begin at multiples of 16 bytes
  ExpertProduct first = product_with(w1, x, w1.cols(), act_size, kernel.tile_rows / 2);
  first.row = row;

  auto* const act = launch.scratch->take<std::byte>(slots * act_stride * static_cast<std::int64_t>(act_size));
  ExpertProduct second = product_with(w2, act, act_stride, act_size, kernel.tile_rows);
  const PartialNorms parts{launch.scratch->take<double>(second.column_tiles * slots),
                           launch.scratch->take<std::uint32_t>(second.column_tiles * slots), slots};
  for (std::size_t begin = 0; begin < weights.size(); begin += kMostExperts) {
    const std::size_t count = std::min<std::size_t>(kMostExperts, weights.size() - begin);
    first.tiles = second.tiles = expert_tiles(start.subspan(begin, count + 1), kernel.tile_slots);
    if (first.tiles.first_tile[count] == 0) continue;
    for (std::size_t e = 0; e < count; ++e) {
      set_weight(first, 0, e, *weights[begin + e].w1);
      set_weight(first, 1, e, *weights[begin + e].w3);
      set_weight(second, 0, e, *weights[begin + e].w2);
    }
    kernel.gate_and_up(launch, first, w1.dtype(), act, act_stride);
    kernel.down(launch, second, w2.dtype(), f, parts);
  }
  if (inner.sums != nullptr) accumulate_squares(launch, act, act_stride, nullptr, start, w1.rows(), inner);
  finish_norms<<<static_cast<unsigned>(ceil_div(slots, kNormThreads)), kNormThreads, 0, launch.stream>>>(
      parts, second.column_tiles, norm, max_abs);
  REAP_CUDA_LAUNCHED();
}

}  // namespace reap::cuda
