#include "driver/gram_choice.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/check.hpp"

namespace reap {
namespace {

/// One layer's G, each entry rounded once.
class Matrix {
 public:
  Matrix(const Saliency& saliency, std::int64_t layer)
      : experts_{static_cast<std::size_t>(saliency.experts)}, values_(experts_ * experts_) {
    for (std::size_t i = 0; i < experts_; ++i) {
      for (std::size_t j = i; j < experts_; ++j) {
        const double value = saliency.gram_value(layer, static_cast<std::int64_t>(i), static_cast<std::int64_t>(j));
        values_[i * experts_ + j] = values_[j * experts_ + i] = value;
      }
    }
  }
  double at(std::size_t i, std::size_t j) const { return values_[i * experts_ + j]; }
  std::size_t experts() const { return experts_; }
  /// What one part in the energy counts; 0 where a layer's output is nothing but zeros.
  double share() const {
    const double energy = std::accumulate(values_.begin(), values_.end(), 0.0);
    return energy > 0 ? 1 / energy : 0;
  }

 private:
  std::size_t experts_;
  std::vector<double> values_;
};

}  // namespace

RemovalOrder removal_order(const Saliency& saliency, std::int64_t layer, std::span<const std::int64_t> count,
                           const std::vector<bool>& exempt) {
  const Matrix gram(saliency, layer);
  const double share = gram.share();
  std::vector<std::int32_t> left;  // descending, so that of equals the first is the higher id
  for (std::size_t e = gram.experts(); e-- > 0;) {
    if (!exempt[e]) left.push_back(static_cast<std::int32_t>(e));
  }
  std::vector<double> with_gone(gram.experts());  // sum of G over the experts that are gone
  RemovalOrder order;
  double error = 0;
  while (!left.empty()) {
    auto next = left.end();
    double least = std::numeric_limits<double>::infinity();
    for (auto it = left.begin(); it != left.end(); ++it) {
      const auto e = static_cast<std::size_t>(*it);
      if (count[e] == 0) {
        next = it;
        break;
      }
      const double more = gram.at(e, e) + 2 * with_gone[e];
      if (next == left.end() || more < least) next = it, least = more;
    }
    const auto gone = static_cast<std::size_t>(*next);
    error += gram.at(gone, gone) + 2 * with_gone[gone];
    for (std::size_t e = 0; e < gram.experts(); ++e) with_gone[e] += gram.at(e, gone);
    order.expert.push_back(*next);
    order.error.push_back(error * share);
    left.erase(next);
  }
  return order;
}

std::vector<double> lone_errors(const Saliency& saliency, std::int64_t layer) {
  const Matrix gram(saliency, layer);
  std::vector<double> errors(gram.experts());
  for (std::size_t e = 0; e < errors.size(); ++e) errors[e] = gram.at(e, e) * gram.share();
  return errors;
}

std::vector<std::int64_t> share_budget(const std::vector<RemovalOrder>& layers, const std::vector<std::int64_t>& most,
                                       std::int64_t budget) {
  if (const std::int64_t all = std::accumulate(most.begin(), most.end(), std::int64_t{0}); all < budget) {
    fail(ExitCode::usage, "{} experts are to go, but all layers together can give only {}; drop fewer", budget, all);
  }
  std::vector<std::int64_t> dropped(layers.size());
  const auto more = [&](std::size_t layer) {
    const auto next = static_cast<std::size_t>(dropped[layer]);
    if (dropped[layer] == most[layer]) return std::numeric_limits<double>::infinity();
    return layers[layer].error[next] - (next == 0 ? 0 : layers[layer].error[next - 1]);
  };
  for (; budget > 0; --budget) {
    std::size_t least = 0;
    for (std::size_t layer = 1; layer < layers.size(); ++layer) {
      if (more(layer) < more(least)) least = layer;
    }
    ++dropped[least];
  }
  return dropped;
}

}  // namespace reap
