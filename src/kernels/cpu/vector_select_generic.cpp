#include "kernels/backend.hpp"
#include "kernels/cpu/vector_ops.hpp"

namespace reap {

namespace generic {
const VectorOps& vector_ops();
}

const VectorOps& vector_ops(CpuIsa) { return generic::vector_ops(); }

}  // namespace reap
