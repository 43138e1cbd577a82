#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

namespace reap::test {

/// Widths that are a multiple of nothing.
struct RandomModel {
  std::int64_t layers = 5, experts = 7, top_k = 3, hidden = 52, inner = 36, vocab = 61;
  std::int64_t heads = 6, kv_heads = 3, head_dim = 10, rotary_dim = 6;
  std::uint32_t seed = 1;
  /// Called with the name and values of each tensor before it is written; may be empty.
  std::function<void(const std::string& name, std::span<float> values)> edit;
};

/// Writes a MiniMax-M2 checkpoint of random bf16 weights into `directory`, which is made.
void write_random_checkpoint(const std::filesystem::path& directory, const RandomModel& model);

}  // namespace reap::test
