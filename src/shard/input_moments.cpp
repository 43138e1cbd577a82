#include "shard/input_moments.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace reap {

void check_moment_range(const InputMoments::Table& table, InputKind kind, std::int64_t layers,
                        std::int64_t first_layer) {
  const auto found =
      std::ranges::find_if(table.sums, [](std::int64_t sum) { return sum >= kMomentEnd || sum <= -kMomentEnd; });
  if (found == table.sums.end()) return;
  const auto size = static_cast<std::int64_t>(table.sums.size()) / layers;
  fail(ExitCode::numerics, "layer {}: a moment of input '{}' is beyond 2^41; collect no moments (--collect)",
       first_layer + (found - table.sums.begin()) / size, name_of(kind));
}

}  // namespace reap
