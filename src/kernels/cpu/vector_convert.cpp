#include "kernels/cpu/vector_kernels.hpp"

// Plain loops without branches: the compiler turns each into vector code.
namespace reap::REAP_ISA {

void bf16_to_f32(const bf16* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = __builtin_bit_cast(float, std::uint32_t{from[i].bits} << 16);
}

void f16_to_f32(const std::uint16_t* from, std::int64_t count, float* to) {
  constexpr float kExponentShift = 0x1p112f;  // from f16's exponent bias of 15 to 127; makes subnormals right as well
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = from[i];
    const std::uint32_t magnitude = (bits & 0x7fffU) << 13;
    const float finite = __builtin_bit_cast(float, magnitude) * kExponentShift;
    const std::uint32_t special = (bits & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U;
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    to[i] = __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, finite) | special | sign);
  }
}

void f32_to_bf16(const float* from, std::int64_t count, bf16* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, from[i]);
    const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;  // to nearest even
    const std::uint32_t quiet = (bits >> 16) | 0x40U;
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    to[i].bits = static_cast<std::uint16_t>(is_nan ? quiet : rounded);
  }
}

}  // namespace reap::REAP_ISA
