#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "driver/feedback_cache.hpp"
#include "driver/hdf5.hpp"
#include "driver/importance.hpp"
#include "driver/saliency_file.hpp"
#include "shard/imatrix.hpp"

namespace reap {

/// Importance by /imatrix, and feedback by /moments, of a saliency file (docs/format/saliency.md) that has one of them.
/// Rows are read when they are asked for.
class SaliencyImportance final : public ImportanceSource {
 public:
  /// @param source  the model that was observed, or one that was pruned from it, whose manifest says which experts it
  /// has
  /// @throws Error(bad_input)
  SaliencyImportance(const std::filesystem::path& file, const Source& source, std::int64_t least_tokens);

  const std::string& digest() const override { return digest_; }
  std::optional<std::vector<float>> of(std::string_view weight, std::int64_t inputs) const override;
  void check_plan(const Plan& plan) const override;
  bool has_moments() const override { return collected_.moments; }
  std::shared_ptr<const Feedback> feedback(std::string_view weight, std::int64_t inputs) const override;
  std::int64_t least_tokens() const override { return least_tokens_; }
  std::vector<std::int32_t> starved(std::int64_t layer) const override;

 private:
  /// Where the inputs of a weight are.
  struct Place {
    InputKind kind;
    std::int32_t layer;
    std::int32_t expert;  // of the model that was observed; -1 where there is none
  };
  void read_counts(const SaliencyInfo& info);
  void map_experts(const SaliencyInfo& info, const Source& source);
  void find_places(const Source& source);
  std::int64_t count(std::int64_t layer, std::int32_t expert) const;

  Hdf5Reader reader_;
  mutable std::mutex mutex_;
  std::string digest_;
  std::int64_t least_tokens_;
  Collected collected_;
  mutable FeedbackCache feedbacks_;
  std::int64_t layers_ = 0, experts_ = 0;              // of the model that was observed
  std::vector<std::int64_t> counts_;                   // [layers, experts] tokens
  std::vector<std::vector<std::int32_t>> experts_of_;  // [layer][expert of the checkpoint] its number there
  std::string routing_, made_by_;  // digests of plans: of the routing that was observed, and by which the checkpoint
                                   // was pruned; "" = none
  std::unordered_map<std::string, Place> places_;  // by name of the weight
};

}  // namespace reap
