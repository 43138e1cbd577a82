#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/plan.hpp"
#include "driver/source.hpp"
#include "kernels/gptq.hpp"

namespace reap {

/// How much the inputs of a checkpoint's linear layers count: what searches for scales weigh errors with. Several
/// threads may ask.
class ImportanceSource {
 public:
  virtual ~ImportanceSource() = default;

  /// SHA-256 of the file that it comes from.
  virtual const std::string& digest() const = 0;

  /// Sums of squared activations of a weight's inputs; nothing: they count alike.
  /// @param weight  its name in the checkpoint that is rounded
  /// @throws Error(bad_input) when the file does not hold `inputs` sums, none below zero
  virtual std::optional<std::vector<float>> of(std::string_view weight, std::int64_t inputs) const = 0;

  /// Whether it knows how inputs go together.
  virtual bool has_moments() const { return false; }
  /// What makes up for errors of rounding a weight (method gptq); null where that is not known: of w2.
  /// @throws Error(bad_input) when the file does not hold the moments of `inputs` channels
  virtual std::shared_ptr<const Feedback> feedback(std::string_view weight, std::int64_t inputs) const;

  /// That it is one for what a plan leaves of the checkpoint. @throws Error(bad_input)
  virtual void check_plan(const Plan& plan) const;

  /// Inputs of experts that saw fewer tokens count alike; 0: whatever the file has counts.
  virtual std::int64_t least_tokens() const { return 0; }
  /// The experts of a layer that did, ascending.
  virtual std::vector<std::int32_t> starved(std::int64_t layer) const;
};

/// Opens the importance of a checkpoint's inputs: an importance file (docs/format/imatrix.md), or a saliency file with
/// imatrix or moments of this checkpoint or of the model that it was pruned from.
/// @param least_tokens  of a saliency file
/// @throws Error(bad_input) when it is neither, or of another model; Error(io)
std::unique_ptr<const ImportanceSource> open_importance(const std::filesystem::path& file, const Source& source,
                                                        std::int64_t least_tokens);

}  // namespace reap
