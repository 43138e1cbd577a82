#pragma once

#include <cstdint>

#include "kernels/dtype.hpp"

namespace reap {

enum class CpuIsa : std::uint8_t;

/// The loops that gain from wide vectors, for one instruction set: each works on one row or tile, without threads.
/// Their sources (kernels/cpu/vector_*.cpp) are compiled once per instruction set, so they hold no templates or inline
/// functions of a library: the linker could take such a function's AVX-512 copy for the whole program.
/// Pointers need no alignment beyond that of their elements; results do not depend on it.
struct VectorOps {
  void (*bf16_to_f32)(const bf16* from, std::int64_t count, float* to);
  void (*f16_to_f32)(const std::uint16_t* from, std::int64_t count, float* to);
  void (*f32_to_bf16)(const float* from, std::int64_t count, bf16* to);

  /// y = x / sqrt(mean(x^2) + eps) * weight; y may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t width, float* y);

  /// Rotates pairs (i, i + half) of each head in place; angle: [half] cosines, then [half] sines.
  void (*rope)(float* row, const float* angle, std::int64_t heads, std::int64_t head_dim, std::int64_t half);

  void (*sigmoid)(const float* x, std::int64_t count, float* s);

  /// x += sum over j ascending of gate[j] * f[position[j]], where f is [.., width] fp32 or bf16.
  void (*combine)(const void* f, bool is_bf16, const std::int32_t* position, const float* gate, std::int64_t top_k,
                  std::int64_t width, float* x);
};

/// The table for `isa`, which the machine must have (not `automatic`).
const VectorOps& vector_ops(CpuIsa isa);

}  // namespace reap
