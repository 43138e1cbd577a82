#include "kernels/cuda/products.hpp"

#include <array>
#include <string>

#include "kernels/cuda/check.hpp"

namespace reap::cuda {
namespace {

constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;  // what cuBLAS recommends for Hopper
constexpr std::int64_t kPlannedRows = 4096;                       // that the algorithm is chosen for
constexpr std::uint32_t kAlignment = 16;                          // of every row of every matrix
constexpr int kCandidates = 16;

void check(cublasStatus_t status, const char* call, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail_at(ExitCode::io, std::string("cuBLASLt: ") + cublasLtGetStatusString(status) + ", in " + call, __FILE__, line);
}
#define REAP_CUBLAS(call) check((call), #call, __LINE__)

/// A setting of an algorithm.
template <class T>
T setting(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t name) {
  T value{};
  REAP_CUBLAS(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, name, &value, sizeof value, nullptr));
  return value;
}

bool splits_sums(const cublasLtMatmulAlgo_t& algorithm) {
  return setting<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1 ||
         setting<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) != CUBLASLT_REDUCTION_SCHEME_NONE;
}

/// Whether every row of the weight, of x and of out starts on a multiple of kAlignment.
bool rows_align(Compute precision, std::int64_t width, std::int64_t cols) {
  const auto element = static_cast<std::int64_t>(size_of(activation_dtype(precision)));
  return cols * element % kAlignment == 0 && width * static_cast<std::int64_t>(sizeof(float)) % kAlignment == 0;
}

}  // namespace

/// One product as cuBLASLt sees it. Its matrices are column-major: out^T [width, rows] = w x^T, where w lies as
/// [cols, width] and is transposed, and x as [cols, rows].
struct Products::Plan {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t w, x, out;

  Plan(const Shape& shape, std::int64_t rows) {
    const auto [precision, width, cols] = shape;
    const cudaDataType_t type = precision == Compute::bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    // fp32 is fp32, whatever the environment allows cuBLAS.
    const cublasComputeType_t compute = precision == Compute::bf16 ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_PEDANTIC;
    REAP_CUBLAS(cublasLtMatmulDescInit(&operation, compute, CUDA_R_32F));
    REAP_CUBLAS(
        cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    REAP_CUBLAS(
        cublasLtMatrixLayoutInit(&w, type, static_cast<std::uint64_t>(cols), static_cast<std::uint64_t>(width), cols));
    REAP_CUBLAS(
        cublasLtMatrixLayoutInit(&x, type, static_cast<std::uint64_t>(cols), static_cast<std::uint64_t>(rows), cols));
    REAP_CUBLAS(cublasLtMatrixLayoutInit(&out, CUDA_R_32F, static_cast<std::uint64_t>(width),
                                         static_cast<std::uint64_t>(rows), width));
  }
};

Products::Products(const Memory& memory) : workspace_{memory, kWorkspaceBytes} {
  REAP_CUBLAS(cublasLtCreate(&handle_));
}

Products::~Products() { cublasLtDestroy(handle_); }

/// Whether `algorithm` takes few rows and odd numbers of them as well as many.
bool Products::serves(const Shape& shape, const cublasLtMatmulAlgo_t& algorithm) const {
  if (splits_sums(algorithm)) return false;
  for (const std::int64_t rows :
       {std::int64_t{1}, std::int64_t{17}, std::int64_t{255}, kPlannedRows, 16 * kPlannedRows}) {
    Plan plan(shape, rows);
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle_, &plan.operation, &plan.w, &plan.x, &plan.out, &plan.out, &algorithm, &result);
    if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > static_cast<std::size_t>(kWorkspaceBytes))
      return false;
  }
  return true;
}

std::optional<cublasLtMatmulAlgo_t> Products::choose(const Shape& shape) const {
  cublasLtMatmulPreferenceOpaque_t preference;
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    REAP_CUBLAS(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof value));
  };
  REAP_CUBLAS(cublasLtMatmulPreferenceInit(&preference));
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kWorkspaceBytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
  for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(name, kAlignment);
  }
  Plan plan(shape, kPlannedRows);
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> candidates{};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, &plan.operation, &plan.w, &plan.x, &plan.out, &plan.out, &preference,
                                     kCandidates, candidates.data(), &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) REAP_CUBLAS(status);
  for (int i = 0; i < found; ++i) {  // best first
    const cublasLtMatmulHeuristicResult_t& candidate = candidates[static_cast<std::size_t>(i)];
    if (candidate.state == CUBLAS_STATUS_SUCCESS && serves(shape, candidate.algo)) return candidate.algo;
  }
  return std::nullopt;
}

const std::optional<cublasLtMatmulAlgo_t>& Products::algorithm(const Shape& shape) {
  const auto known = algorithms_.find(shape);
  if (known != algorithms_.end()) return known->second;
  return algorithms_.emplace(shape, std::apply(rows_align, shape) ? choose(shape) : std::nullopt).first->second;
}

void Products::multiply(const Launch& launch, const void* x, std::int64_t rows, const CudaWeight& w, float* out,
                        bool add) {
  if (rows == 0) return;
  const Shape shape{w.precision(), w.rows(), w.cols()};
  const void* const weights = expanded(launch, w);
  const std::optional<cublasLtMatmulAlgo_t>& chosen = algorithm(shape);
  if (!chosen) return plain_product(launch, w.precision(), x, rows, weights, w.rows(), w.cols(), out, add);
  REAP_CUDA_REQUIRE((reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(out)) % kAlignment == 0,
                    "rows of a product that are not aligned");
  Plan plan(shape, rows);
  const float one = 1.0f;
  const float kept = add ? 1.0f : 0.0f;
  REAP_CUBLAS(cublasLtMatmul(handle_, &plan.operation, &one, weights, &plan.w, x, &plan.x, &kept, out, &plan.out, out,
                             &plan.out, &*chosen, workspace_.data(), static_cast<std::size_t>(kWorkspaceBytes),
                             launch.stream));
}

}  // namespace reap::cuda
