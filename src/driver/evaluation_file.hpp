#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "shard/json.hpp"
#include "shard/prediction_sums.hpp"

namespace reap {

/// How a model predicts the held-out samples: over all of them, by domain, and by half.
struct ModelMeasures {
  MeanMeasures all = {};
  std::vector<MeanMeasures> domains = {};
  std::array<MeanMeasures, 2> halves = {};
};

/// A variant: a plan as a mask, or a model made from the base; and how it predicts. kl, top1 and overlap are against
/// the base.
struct EvaluatedVariant {
  std::string name = {};
  std::string criterion = {};
  double ratio = 0;                     // as the plan asked for; 0 when it named the number kept, or of a mere model
  std::vector<std::int64_t> kept = {};  // experts of each layer; one number when all keep as many
  std::string plan_digest = {};         // xxh3-128 of the plan's text; "" for a model
  std::string model_digest = {};        // of the model; "" for a mask
  ModelMeasures measures = {};

  /// Whether both are the same mask, or the same model, under whatever name.
  bool same_as(const EvaluatedVariant& other) const {
    return plan_digest == other.plan_digest && model_digest == other.model_digest;
  }
};

/// What an evaluation was of and what came out (docs/format/evaluation.md).
struct Evaluation {
  std::string model_type = {}, model_digest = {};
  std::string heldout_digest = {};  // of the whole file
  std::int64_t samples = 0;         // of it that were taken
  std::int64_t tokens = 0;
  std::string compute = {};  // "fp32" or "bf16"
  std::int64_t block_tokens = 0;
  std::string numerics = {};
  std::vector<std::string> domains = {};
  std::string calibration_digest = {};  // what the plans of a sweep rest on; "" = null
  ModelMeasures base = {};              // kl 0, top1 and overlap 1: not in the file
  std::vector<EvaluatedVariant> variants = {};
  Json choice = {};  // of a sweep that chose among its variants; null = none
};

/// e^nll.
double perplexity(const MeanMeasures& measures);

/// The means of one variant of the sums.
ModelMeasures measures_of(const PredictionSums& sums, std::int64_t variant);

/// What makes the measures of a plan differ between two evaluations, in words; "" when both are of the same model,
/// held-out samples and numerics.
std::string difference(const Evaluation& a, const Evaluation& b);

/// Whether both list the same variants under the same names, in the same order.
bool same_variants(const Evaluation& a, const Evaluation& b);

/// Canonical JSON: the same evaluation gives the same bytes. Numbers that are not finite are null.
std::string evaluation_text(const Evaluation& evaluation);
Evaluation parse_evaluation(const std::string& text, const std::string& what);
/// Writes atomically.
void write_evaluation(const std::filesystem::path& file, const Evaluation& evaluation);
Evaluation read_evaluation(const std::filesystem::path& file);

/// A table for people: perplexity by domain of every variant, and how it departs from the base.
std::string evaluation_table(const Evaluation& evaluation);

/// The same of one variant beside the unpruned model, in Markdown, for a model card.
std::string evaluation_markdown(const Evaluation& evaluation, const ModelMeasures& variant);

}  // namespace reap
