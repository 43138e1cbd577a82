#include "shard/prediction_sums.hpp"

#include <array>
#include <limits>

#include "kernels/check.hpp"

namespace reap {

PredictionSums::PredictionSums(std::int64_t variants, std::int64_t groups)
    : variants_{variants}, groups_{groups}, sums_(static_cast<std::size_t>(variants * groups * kPerCell)) {}

bool PredictionSums::add(std::int64_t variant, std::int64_t group, const TokenMeasures& token) {
  std::array<Digits, kSums> digits{};
  if (!to_digits(token.nll, kFractionBits, digits[0]) || !to_digits(token.kl, kFractionBits, digits[1]) ||
      !to_digits(token.overlap, kFractionBits, digits[2])) {
    return false;
  }
  std::int64_t* to = cell(variant, group);
  *to++ += 1;
  *to++ += token.agrees ? 1 : 0;
  for (const Digits& sum : digits) {
    for (const std::int64_t digit : sum) *to++ += digit;
  }
  return true;
}

void PredictionSums::normalise() {
  for (std::int64_t* at = sums_.data(); at != sums_.data() + sums_.size(); at += kPerCell) {
    for (std::int64_t sum = 0; sum < kSums; ++sum) {
      if (reap::normalise(std::span<std::int64_t, kDigits>(at + kCounts + sum * kDigits, kDigits))) continue;
      fail(ExitCode::numerics, "a sum over the predictions of a domain is out of range");
    }
  }
}

void PredictionSums::all_sum(const Comm& world) {
  normalise();
  world.all_sum(sums_);
  normalise();
}

MeanMeasures PredictionSums::mean(std::int64_t variant, std::span<const std::int64_t> groups) const {
  std::array<std::int64_t, kPerCell> total{};
  for (const std::int64_t group : groups) {
    const std::int64_t* from = sums_.data() + (variant * groups_ + group) * kPerCell;
    for (std::int64_t& sum : total) sum += *from++;
  }
  const auto count = static_cast<double>(total[0]);
  const auto mean_of = [&](std::int64_t sum) {
    const std::span<const std::int64_t, kDigits> digits(total.data() + kCounts + sum * kDigits, kDigits);
    return total[0] == 0 ? std::numeric_limits<double>::quiet_NaN() : to_double(digits, kFractionBits) / count;
  };
  return {.predicted = total[0],
          .nll = mean_of(0),
          .kl = mean_of(1),
          .overlap = mean_of(2),
          .top1 = total[0] == 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(total[1]) / count};
}

}  // namespace reap
