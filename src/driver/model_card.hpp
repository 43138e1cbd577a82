#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/plan.hpp"
#include "driver/quantize_options.hpp"
#include "shard/checkpoint.hpp"
#include "shard/model.hpp"

namespace reap {

constexpr const char* kCardName = "README.md";

/// What a card tells besides model and plan.
struct CardFacts {
  bool substitution = false;  // dropped experts are constants
  std::uint64_t source_bytes = 0;  // of all tensors
  std::uint64_t output_bytes = 0;
  std::string base_card;              // name of the source's own card in the output; "" when it has none
  std::vector<std::string> licences;  // names of licence files in the output
  std::string evaluation;             // Markdown; "" = not evaluated
  std::optional<QuantizeOptions> quantize;
};

/// The README.md of a pruned model (docs/format/model_card.md): canonical, without clock, host or path.
std::string model_card(const Checkpoint& source, const Model& model, const Plan& plan, const CardFacts& facts);

/// Whether a README.md is one that this program wrote.
bool is_model_card(std::string_view text);

/// The head of a checkpoint's README.md, in which front matter and mark are; "" when there is none.
std::string card_head(const Checkpoint& checkpoint);

}  // namespace reap
