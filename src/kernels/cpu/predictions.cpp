#include <cmath>
#include <limits>

#include "kernels/cpu/ops.hpp"

namespace reap::cpu {

// Two walks over a row: the largest logit, then the sum. A row of 200,064 stays in the cache between them.
void predict(const Run& run, const float* logits, const std::int32_t* target, std::int64_t rows, std::int64_t vocab,
             Prediction* prediction) {
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* const x = logits + row * vocab;
    std::int64_t top = 0;
    const float max = run.vector.max_of(x, vocab, &top);
    const double sum = run.vector.exp_sum(x, vocab, max);
    const bool given = target[row] >= 0;
    const double nll = given ? static_cast<double>(max) - static_cast<double>(x[target[row]]) + std::log(sum) : 0;
    prediction[row] = {sum, std::isfinite(sum) ? nll : std::numeric_limits<double>::quiet_NaN(), max,
                       static_cast<std::int32_t>(top)};
  }
}

// ln(p / q) = (p_logit - q_logit) - shift, where shift is the difference of the logarithms of the sums over e^logit.
// With one exponential for each logit, the sums over p and q are those of predict(): they are 1 to fp64's precision.
void diverge(const Run& run, const float* p_logits, const Prediction* p, const float* q_logits, const Prediction* q,
             std::int64_t rows, std::int64_t vocab, Divergence* divergence) {
#pragma omp parallel for num_threads(run.threads) schedule(static)
  for (std::int64_t row = 0; row < rows; ++row) {
    const double shift = static_cast<double>(p[row].max) - static_cast<double>(q[row].max) +
                         (std::log(p[row].sum) - std::log(q[row].sum));
    double kl = 0;
    double overlap = 0;
    run.vector.divergence(p_logits + row * vocab, p[row].max, q_logits + row * vocab, q[row].max, vocab, shift,
                          p[row].sum / q[row].sum, &kl, &overlap);
    kl /= p[row].sum;
    divergence[row] = {kl < 0 ? 0 : kl, overlap / p[row].sum};
  }
}

}  // namespace reap::cpu
