#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace reap::test {

/// `count` values spread evenly over [low, high), the same ones on every machine.
inline std::vector<float> random_values(std::int64_t count, std::uint32_t seed, float low = -1.0f, float high = 1.0f) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = low + (high - low) * static_cast<float>(generator() >> 8) * 0x1p-24f;
  return values;
}

}  // namespace reap::test
