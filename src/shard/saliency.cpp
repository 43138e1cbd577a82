#include "shard/saliency.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace reap {

Saliency::Saliency(std::int64_t group_count, std::int64_t layer_count, std::int64_t expert_count)
    : groups{group_count},
      layers{layer_count},
      experts{expert_count},
      sums(static_cast<std::size_t>(groups * layers * experts * kSumsPerExpert)),
      max_abs(static_cast<std::size_t>(groups * layers * experts)) {}

std::int64_t& Saliency::count(std::int64_t group, std::int64_t layer, std::int64_t expert) {
  return sums[static_cast<std::size_t>(index(group, layer, expert) * kSumsPerExpert)];
}

std::int64_t Saliency::count(std::int64_t group, std::int64_t layer, std::int64_t expert) const {
  return sums[static_cast<std::size_t>(index(group, layer, expert) * kSumsPerExpert)];
}

std::span<std::int64_t, kDigits> Saliency::digits(Field field, std::int64_t group, std::int64_t layer,
                                                  std::int64_t expert) {
  const std::int64_t at = index(group, layer, expert) * kSumsPerExpert + digits_offset(field);
  return std::span<std::int64_t, kDigits>(sums.data() + at, kDigits);
}

std::span<const std::int64_t, kDigits> Saliency::digits(Field field, std::int64_t group, std::int64_t layer,
                                                        std::int64_t expert) const {
  const std::int64_t at = index(group, layer, expert) * kSumsPerExpert + digits_offset(field);
  return std::span<const std::int64_t, kDigits>(sums.data() + at, kDigits);
}

double Saliency::gram_value(std::int64_t layer, std::int64_t i, std::int64_t j) const {
  const std::span<const std::int64_t, kDigits> digits(gram.data() + gram_index(layer, i, j), kDigits);
  return signed_to_double(digits, kPairFractionBits);
}

void normalise_sums(std::span<std::int64_t> sums, std::int64_t layer) {
  const std::int64_t experts = static_cast<std::int64_t>(sums.size()) / kSumsPerExpert;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    for (const FieldInfo& info : kFields) {
      std::int64_t* digits = sums.data() + expert * kSumsPerExpert + digits_offset(info.field);
      if (!reap::normalise(std::span<std::int64_t, kDigits>(digits, kDigits))) {
        fail(ExitCode::numerics, "layer {}, expert {}: the sum of field {} is out of range", layer, expert, info.name);
      }
    }
  }
}

void normalise_gram(std::span<std::int64_t> sums, std::int64_t experts, std::int64_t layer) {
  std::int64_t* digits = sums.data();
  for (std::int64_t i = 0; i < experts; ++i) {
    for (std::int64_t j = i; j < experts; ++j, digits += kDigits) {
      if (reap::normalise_signed(std::span<std::int64_t, kDigits>(digits, kDigits))) continue;
      fail(ExitCode::numerics, "layer {}, experts {} and {}: the sum of their co-activation is out of range", layer, i,
           j);
    }
  }
}

void Saliency::normalise() {
  for (const InputKind kind : kInputKinds) normalise_squares(imatrix.at(kind), kind, layers);
  for (const InputKind kind : kMomentKinds) check_moment_range(moments.at(kind), kind, layers);
  const auto pairs = static_cast<std::size_t>(pair_count(experts) * kDigits);
  for (std::int64_t layer = 0; !gram.empty() && layer < layers; ++layer) {
    normalise_gram(std::span(gram).subspan(static_cast<std::size_t>(layer) * pairs, pairs), experts, layer);
  }
  for (std::int64_t group = 0; group < groups; ++group) {
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      std::int64_t* first = &count(group, layer, 0);
      normalise_sums(std::span(first, static_cast<std::size_t>(experts * kSumsPerExpert)), layer);
    }
  }
}

void Saliency::check_conservation(std::int64_t tokens, std::int64_t top_k) const {
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::int64_t slots = 0;
    for (std::int64_t group = 0; group < groups; ++group) {
      for (std::int64_t expert = 0; expert < experts; ++expert) slots += count(group, layer, expert);
    }
    REAP_CHECK(slots == top_k * tokens, "layer {}: counts add up to {}, expected top_k {} x {} tokens", layer, slots,
               top_k, tokens);
  }
}

void check_output_range(const Saliency& saliency) {
  constexpr double kLimit = 0x1p31;
  constexpr double kRounding = 1 + 0x1p-8;  // max_abs is taken before outputs are rounded to activations
  for (std::int64_t layer = 0; layer < saliency.layers; ++layer) {
    for (std::int64_t expert = 0; expert < saliency.experts; ++expert) {
      double count = 0, largest = 0;
      for (std::int64_t group = 0; group < saliency.groups; ++group) {
        count += static_cast<double>(saliency.count(group, layer, expert));
        const auto at = static_cast<std::size_t>(saliency.index(group, layer, expert));
        largest = std::max(largest, static_cast<double>(saliency.max_abs[at]));
      }
      if (count * largest * kRounding < kLimit) continue;
      fail(ExitCode::numerics,
           "layer {}, expert {}: the sum of its outputs may be out of range: {} tokens with elements up to {}; collect "
           "no outputs (--collect), or fewer samples",
           layer, expert, count, largest);
    }
  }
}

FieldTotals totals(const Saliency& saliency) {
  const auto cells = static_cast<std::size_t>(saliency.layers * saliency.experts);
  FieldTotals total;
  total.layers = saliency.layers;
  total.experts = saliency.experts;
  total.count.resize(cells);
  total.max_abs.resize(cells);
  for (auto& sum : total.sum) sum.resize(cells);

  std::vector<std::int64_t> sums(static_cast<std::size_t>(kSumsPerExpert));
  for (std::size_t cell = 0; cell < cells; ++cell) {
    std::fill(sums.begin(), sums.end(), 0);
    float max_abs = 0;
    for (std::size_t group = 0; group < static_cast<std::size_t>(saliency.groups); ++group) {
      const std::size_t from = group * cells + cell;
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += saliency.sums[from * sums.size() + i];
      max_abs = std::max(max_abs, saliency.max_abs[from]);
    }
    total.count[cell] = sums[0];
    total.max_abs[cell] = static_cast<double>(max_abs);
    for (const FieldInfo& info : kFields) {
      const std::span<const std::int64_t, kDigits> digits(sums.data() + digits_offset(info.field), kDigits);
      total.sum[static_cast<std::size_t>(info.field)][cell] = to_double(digits, info.fraction_bits);
    }
  }
  return total;
}

}  // namespace reap
