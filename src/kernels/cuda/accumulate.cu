#include <algorithm>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/fixed_digits.hpp"
#include "kernels/cuda/ops.hpp"
#include "kernels/fields.hpp"
#include "kernels/round_up.hpp"

namespace reap::cuda {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kMaxBlocks = 1 << 20;
constexpr int kFieldCount = static_cast<int>(kFields.size());

using Sum = unsigned long long;  // what atomicAdd takes; sums are never negative
static_assert(sizeof(Sum) == sizeof(std::int64_t));

/// The digits of a slot's fields. g * norm is exact in fp64 (24 + 24 bits), its square is rounded once.
__device__ bool digits_of(float gate_value, float norm, std::uint64_t digits[kFieldCount][kDigits]) {
  const double g = gate_value;
  const double n = norm;
  const double values[kFieldCount] = {g, n, g * n, n * n, (g * n) * (g * n)};  // in the order of kFields
  bool good = true;
#pragma unroll
  for (int i = 0; i < kFieldCount; ++i) {
    constexpr int kFirstSquare = static_cast<int>(Field::norm_sq);
    good = to_digits(values[i], i < kFirstSquare ? kFractionBits : kSquareFractionBits, digits[i]) && good;
  }
  return good;
}

constexpr bool squares_come_last() {
  for (std::size_t i = 0; i < kFields.size(); ++i) {
    const bool is_square = i >= static_cast<std::size_t>(Field::norm_sq);
    if (kFields[i].fraction_bits != (is_square ? kSquareFractionBits : kFractionBits)) return false;
  }
  return true;
}
static_assert(squares_come_last());

/// A thread per slot. Integer sums and maxima: the order of the threads leaves no trace.
__global__ void add_slots(const std::int32_t* expert, const float* gate_value, const float* norm, const float* max_abs,
                          const std::int32_t* position, const std::int32_t* group, std::int64_t slots,
                          std::int64_t top_k, std::int64_t experts, Sum* sums, float* max_abs_table,
                          long long* bad_slot) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t slot = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; slot < slots; slot += step) {
    const float largest = max_abs[position[slot]];
    std::uint64_t digits[kFieldCount][kDigits];
    if (!isfinite(largest) || largest < 0 || !digits_of(gate_value[slot], norm[position[slot]], digits)) {
      atomicMin(bad_slot, static_cast<long long>(slot));
      continue;
    }
    const std::int64_t cell = group[slot / top_k] * experts + expert[slot];
    Sum* const to = sums + cell * kSumsPerExpert;
    atomicAdd(to, Sum{1});
#pragma unroll
    for (int i = 0; i < kFieldCount * kDigits; ++i) {
      const std::uint64_t digit = digits[i / kDigits][i % kDigits];
      if (digit != 0) atomicAdd(to + 1 + i, Sum{digit});
    }
    // Floats that are not negative rank as their bits do; the bits of -0 are below all.
    atomicMax(reinterpret_cast<int*>(max_abs_table + cell), __float_as_int(largest));
  }
}

/// One thread: there is one record, and hardly ever anything to put there.
__global__ void record_slot(const std::int64_t* bad_slot, std::int64_t call, const std::int32_t* expert,
                            const float* gate_value, const float* norm, const std::int32_t* position, BadSlot* record) {
  const std::int64_t slot = *bad_slot;
  if (slot == BadSlot::kNone || record->slot != BadSlot::kNone) return;
  record->slot = slot;
  record->call = call;
  record->expert = expert[slot];
  record->gate_value = gate_value[slot];
  record->norm = norm[position[slot]];
}

}  // namespace

void accumulate(const Launch& launch, const std::int32_t* expert, const float* gate_value, const float* norm,
                const float* max_abs, const std::int32_t* position, const std::int32_t* group, std::int64_t rows,
                std::int64_t top_k, std::int64_t experts, std::int64_t* sums, float* max_abs_table,
                std::int64_t* bad_slot) {
  const std::int64_t slots = rows * top_k;
  if (slots == 0) return;
  static_assert(sizeof(long long) == sizeof(std::int64_t));
  const int blocks = static_cast<int>(std::min(ceil_div(slots, kThreads), kMaxBlocks));
  add_slots<<<blocks, kThreads, 0, launch.stream>>>(expert, gate_value, norm, max_abs, position, group, slots, top_k,
                                                    experts, reinterpret_cast<Sum*>(sums), max_abs_table,
                                                    reinterpret_cast<long long*>(bad_slot));
  REAP_CUDA_LAUNCHED();
}

void record_bad_slot(const Launch& launch, const std::int64_t* bad_slot, std::int64_t call, const std::int32_t* expert,
                     const float* gate_value, const float* norm, const std::int32_t* position, BadSlot* record) {
  record_slot<<<1, 1, 0, launch.stream>>>(bad_slot, call, expert, gate_value, norm, position, record);
  REAP_CUDA_LAUNCHED();
}

}  // namespace reap::cuda
