#include "shard/input_block.hpp"

#include <numeric>

#include "kernels/check.hpp"

namespace reap {

InputBlock::InputBlock(const Checkpoint& checkpoint, const Model& model, const Samples& samples, Backend& backend,
                       std::int64_t max_rows)
    : checkpoint_{checkpoint},
      model_{model},
      samples_{samples},
      backend_{backend},
      tokens_{backend.memory(), max_rows} {}

void InputBlock::hold_table() { table_.emplace(load_embedding(checkpoint_, model_, backend_)); }

void InputBlock::embed(const Block& block, float* x) {
  std::vector<std::int32_t> tokens = samples_.read_tokens(block.begin, block.end);
  REAP_CHECK(static_cast<std::int64_t>(tokens.size()) == block.rows(), "block {} has {} tokens, read {}", block.index,
             block.rows(), tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < model_.vocab) continue;
    fail(ExitCode::bad_input, "token {} of the calibration data is {}, not in the model's vocabulary of {}",
         block.begin + static_cast<std::int64_t>(i), tokens[i], model_.vocab);
  }
  Embedding rows{};
  if (!table_) {
    rows = load_embedding_rows(checkpoint_, model_, tokens, backend_);
    std::iota(tokens.begin(), tokens.end(), 0);
  }
  const Embedding& table = table_ ? *table_ : rows;
  backend_.upload(tokens_.data(), tokens.data(), tokens.size() * sizeof(std::int32_t));
  backend_.embed(table.table.data(), table.dtype, model_.hidden, tokens_.data(), block.rows(), x);
  backend_.synchronize();  // `tokens` and `rows` end here
}

}  // namespace reap
