#include "kernels/cpu/vector_kernels.hpp"

namespace reap::REAP_ISA {

void f8_to_bf16(const std::uint8_t* from, std::int64_t count, float scale, bf16* to) {
  constexpr std::int64_t kPiece = 256;
  float values[kPiece];
  for (std::int64_t i = 0; i < count; i += kPiece) {
    const std::int64_t piece = count - i < kPiece ? count - i : kPiece;
    f8_to_f32(from + i, piece, scale, values);
    f32_to_bf16(values, piece, to + i);
  }
}

}  // namespace reap::REAP_ISA
