#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/ops.hpp"
#include "kernels/fields.hpp"

namespace reap::cpu {
namespace {

using SlotDigits = std::array<Digits, kFields.size()>;

/// The digits of a slot's fields. g * norm is exact in fp64 (24 + 24 bits), its square is rounded once.
/// @return false when a value is not finite, negative or out of range
bool digits_of(float gate_value, float norm, SlotDigits& digits) {
  const double g = gate_value;
  const double n = norm;
  const std::array<double, kFields.size()> values{g, n, g * n, n * n, (g * n) * (g * n)};  // in the order of kFields
  bool good = true;
  for (std::size_t i = 0; i < values.size(); ++i)
    good = good && to_digits(values[i], kFields[i].fraction_bits, digits[i]);
  return good;
}

void add(const SlotDigits& digits, std::int64_t* sums) {
  ++*sums++;
  for (const Digits& field : digits) {
    for (const std::int64_t digit : field) *sums++ += digit;
  }
}

}  // namespace

// Each thread walks all slots and adds those of its own experts: no two write to the same sums. A digit grows by less
// than 2^32 per slot and is not normalised here.
void accumulate(const Run& run, const std::int32_t* expert, const float* gate_value, const float* norm,
                const float* max_abs, const std::int32_t* position, const std::int32_t* group, std::int64_t rows,
                std::int64_t top_k, std::int64_t experts, std::int64_t* sums, float* max_abs_table,
                std::int64_t* bad_slot) {
  std::int64_t first_bad = std::numeric_limits<std::int64_t>::max();
#pragma omp parallel for num_threads(run.threads) schedule(static) reduction(min : first_bad)
  for (std::int64_t part = 0; part < run.threads; ++part) {
    const std::int64_t first = experts * part / run.threads;
    const std::int64_t last = experts * (part + 1) / run.threads;
    for (std::int64_t slot = 0; slot < rows * top_k; ++slot) {
      if (expert[slot] < first || expert[slot] >= last) continue;
      const float largest = max_abs[position[slot]];
      SlotDigits digits;
      if (!std::isfinite(largest) || largest < 0 || !digits_of(gate_value[slot], norm[position[slot]], digits)) {
        first_bad = std::min(first_bad, slot);
        continue;
      }
      const std::int64_t cell = group[slot / top_k] * experts + expert[slot];
      add(digits, sums + cell * kSumsPerExpert);
      max_abs_table[cell] = std::max(max_abs_table[cell], largest);
    }
  }
  *bad_slot = std::min(*bad_slot, first_bad);
}

}  // namespace reap::cpu
