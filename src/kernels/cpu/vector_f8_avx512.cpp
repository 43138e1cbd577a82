#include <immintrin.h>

#include "kernels/cpu/vector_kernels.hpp"

namespace reap::REAP_ISA {

// Looks each code's magnitude up in a table of all 128, which four registers hold: a quarter of the work of computing
// it, and beside AMX products this work shows.
void f8_to_bf16(const std::uint8_t* from, std::int64_t count, float scale, bf16* to) {
  constexpr int kMagnitudes = 128;
  constexpr std::int64_t kLanes = 32;
  std::uint8_t codes[kMagnitudes];
  float values[kMagnitudes];
  bf16 table[kMagnitudes];
  for (int code = 0; code < kMagnitudes; ++code) codes[code] = static_cast<std::uint8_t>(code);
  f8_to_f32(codes, kMagnitudes, scale, values);
  f32_to_bf16(values, kMagnitudes, table);
  const __m512i table0 = _mm512_loadu_si512(table);
  const __m512i table1 = _mm512_loadu_si512(table + kLanes);
  const __m512i table2 = _mm512_loadu_si512(table + 2 * kLanes);
  const __m512i table3 = _mm512_loadu_si512(table + 3 * kLanes);

  for (std::int64_t i = 0; i < count; i += kLanes) {
    const __mmask32 lanes = count - i < kLanes ? (1U << (count - i)) - 1U : ~0U;
    const __m512i code = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(lanes, from + i));
    const __m512i low = _mm512_permutex2var_epi16(table0, code, table1);  // by the low six bits
    const __m512i high = _mm512_permutex2var_epi16(table2, code, table3);
    const __mmask32 is_high = _mm512_test_epi16_mask(code, _mm512_set1_epi16(0x40));
    const __m512i value = _mm512_mask_blend_epi16(is_high, low, high);
    const __m512i sign = _mm512_slli_epi16(_mm512_srli_epi16(code, 7), 15);
    _mm512_mask_storeu_epi16(to + i, lanes, _mm512_xor_si512(value, sign));
  }
}

}  // namespace reap::REAP_ISA
