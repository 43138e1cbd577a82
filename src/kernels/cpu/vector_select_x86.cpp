#include "kernels/backend.hpp"
#include "kernels/cpu/vector_ops.hpp"

namespace reap {

namespace avx2 {
const VectorOps& vector_ops();
}
namespace avx512 {
const VectorOps& vector_ops();
}

const VectorOps& vector_ops(CpuIsa isa) { return isa < CpuIsa::avx512 ? avx2::vector_ops() : avx512::vector_ops(); }

}  // namespace reap
