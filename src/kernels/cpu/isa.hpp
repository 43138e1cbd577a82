#pragma once

#include "kernels/backend.hpp"

namespace reap {

/// The type that bf16 products run in: bf16 where the processor multiplies it, else f32 with operands rounded to bf16.
DType bf16_product_dtype(CpuIsa isa);

/// Rows of the tile that every matrix product is cut into; bits depend on it. AMX needs 64 rows to keep its units busy;
/// AVX-512 reaches full speed with 32 and wastes fewer rows of padding. oneDNN's AVX2 kernel takes 6 rows at a time and
/// adds up the rows left over in another order: only a multiple of 6 gives every row of the tile the same bits.
std::int64_t row_tile(CpuIsa isa);

}  // namespace reap
