#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "driver/saliency_file.hpp"

namespace reap {

/// Sets the sum of a field of one expert. Conservation of counts is of no concern here.
inline void set_sum(Saliency& s, Field field, std::int64_t group, std::int64_t layer, std::int64_t expert,
                    double value) {
  Digits digits{};
  ASSERT_TRUE(to_digits(value, kFields[static_cast<std::size_t>(field)].fraction_bits, digits));
  std::copy(digits.begin(), digits.end(), s.digits(field, group, layer, expert).begin());
}

/// Sums of g|f| and counts of one expert in one group.
struct Seen {
  double gate_norm = 0;
  std::int64_t count = 0;
};

/// One layer: [group][expert].
inline SaliencyFile layer_of(std::vector<std::string> domains, const std::vector<std::vector<Seen>>& groups,
                             std::int64_t top_k = 1) {
  SaliencyFile file;
  file.info.top_k = top_k;
  file.info.domains = std::move(domains);
  file.saliency = Saliency(std::ssize(groups), 1, std::ssize(groups[0]));
  for (std::int64_t group = 0; group < std::ssize(groups); ++group) {
    for (std::int64_t e = 0; e < file.saliency.experts; ++e) {
      const Seen& seen = groups[static_cast<std::size_t>(group)][static_cast<std::size_t>(e)];
      file.saliency.count(group, 0, e) = seen.count;
      set_sum(file.saliency, Field::gate_norm, group, 0, e, seen.gate_norm);
      if (seen.count > 0) file.saliency.max_abs[static_cast<std::size_t>(file.saliency.index(group, 0, e))] = 1;
    }
  }
  return file;
}

}  // namespace reap
