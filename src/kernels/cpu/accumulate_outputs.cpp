#include <algorithm>
#include <limits>

#include "kernels/buffer.hpp"
#include "kernels/cpu/ops.hpp"
#include "kernels/fixed128.hpp"

namespace reap::cpu {
namespace {

void add(const Digits& digits, std::int64_t* sums) {
  for (const std::int64_t digit : digits) *sums++ += digit;
}

}  // namespace

// Dot products by token, then each thread walks all slots and adds the pairs whose lower expert is its own: no two
// write to the same sums. Of the low experts' longer rows of the triangle every thread has its share.
void accumulate_pairs(const Run& run, const std::int32_t* expert, const float* gate_value, const void* f,
                      const std::int32_t* position, std::int64_t rows, std::int64_t top_k, std::int64_t hidden,
                      std::int64_t experts, std::int64_t* sums, std::int64_t* bad_slot) {
  const bool is_bf16 = run.compute == Compute::bf16;
  const std::int64_t pairs = pair_count(top_k);
  const Buffer<double> dots(host_memory, rows * pairs);
  std::int64_t first_bad = std::numeric_limits<std::int64_t>::max();
#pragma omp parallel num_threads(run.threads) reduction(min : first_bad)
  {
#pragma omp for schedule(static)
    for (std::int64_t row = 0; row < rows; ++row) {
      run.vector.pair_dots(f, is_bf16, position + row * top_k, top_k, hidden, dots.data() + row * pairs);
    }
#pragma omp for schedule(static)
    for (std::int64_t part = 0; part < run.threads; ++part) {
      for (std::int64_t slot = 0; slot < rows * top_k; ++slot) {
        if (expert[slot] % run.threads != part) continue;
        const std::int64_t i = slot % top_k;
        const std::int64_t row = slot / top_k;
        for (std::int64_t j = i; j < top_k; ++j) {
          const std::int64_t other = row * top_k + j;
          const double gates = static_cast<double>(gate_value[slot]) * static_cast<double>(gate_value[other]);
          Digits digits;
          if (to_signed_digits(gates * dots.data()[row * pairs + pair_index(i, j, top_k)], kPairFractionBits, digits)) {
            add(digits, sums + pair_index(expert[slot], expert[other], experts) * kDigits);
          } else {
            first_bad = std::min(first_bad, other);  // when it is not `slot` that is bad, which (i, i) shows
          }
        }
      }
    }
  }
  *bad_slot = std::min(*bad_slot, first_bad);
}

// Each thread adds its columns of all slots.
void accumulate_outputs(const Run& run, const std::int32_t* expert, const void* f, const std::int32_t* position,
                        std::int64_t rows, std::int64_t top_k, std::int64_t hidden, std::int64_t* sums) {
  const bool is_bf16 = run.compute == Compute::bf16;
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t part = 0; part < run.threads; ++part) {
    const std::int64_t first = hidden * part / run.threads;
    const std::int64_t last = hidden * (part + 1) / run.threads;
    for (std::int64_t slot = 0; slot < rows * top_k; ++slot) {
      run.vector.add_fixed(f, is_bf16, position[slot] * hidden + first, last - first,
                           sums + expert[slot] * hidden + first);
    }
  }
}

// Each thread adds its columns of all rows.
void accumulate_squares(const Run& run, const void* x, const std::int32_t* row, std::span<const std::int64_t> start,
                        std::int64_t width, const SquareSums& to) {
  const bool is_bf16 = run.compute == Compute::bf16;
  bool good = true;
#pragma omp parallel for num_threads(run.threads) schedule(static) reduction(&& : good)
  for (std::int64_t part = 0; part < run.threads; ++part) {
    const std::int64_t first = width * part / run.threads;
    const std::int64_t last = width * (part + 1) / run.threads;
    for (std::size_t group = 0; group + 1 < start.size(); ++group) {
      std::int64_t* const low = to.sums + static_cast<std::int64_t>(group) * kSquareDigits * width + first;
      for (std::int64_t place = start[group]; place < start[group + 1]; ++place) {
        const std::int64_t at = row == nullptr ? place : row[place];
        const bool fits = run.vector.add_squares(x, is_bf16, at * width + first, last - first, low, low + width);
        good = good && fits;
      }
    }
  }
  if (!good) *to.bad = 1;
}

}  // namespace reap::cpu
