#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/fields.hpp"
#include "kernels/pairs.hpp"
#include "shard/imatrix.hpp"
#include "shard/input_moments.hpp"

namespace reap {

/// Brings the digits of `sums`, [experts, kSumsPerExpert] of one group and layer, to canonical form.
/// @throws Error(numerics) naming field, layer and expert on overflow
void normalise_sums(std::span<std::int64_t> sums, std::int64_t layer);

/// The same for a layer's `sums` over pairs of experts, [pair_count(experts), kDigits].
void normalise_gram(std::span<std::int64_t> sums, std::int64_t experts, std::int64_t layer);

/// What a pass sums besides the fields.
struct Collected {
  bool gram = false;     // co-activation: g_i g_j <f_i, f_j> of experts that meet in a token
  bool outputs = false;  // f of each expert
  bool imatrix = false;  // squares of the inputs of linear layers, per channel
  bool moments = false;  // products of channels of the inputs of linear layers
  bool operator==(const Collected&) const = default;
};

/// The field sums of a model: [group, layer, expert]. group = domain * 2 + half.
struct Saliency {
  std::int64_t groups = 0;
  std::int64_t layers = 0;
  std::int64_t experts = 0;
  std::vector<std::int64_t> sums;  // [groups, layers, experts, kSumsPerExpert]
  std::vector<float> max_abs;      // [groups, layers, experts] max |f|, 0 where no token came

  // Over all groups; empty when not collected. In a pass, only rank 0 has them.
  std::vector<std::int64_t> gram;     // [layers, pair_count(experts), kDigits] by pair_index(), signed
  std::vector<std::int64_t> outputs;  // [layers, experts, hidden] in units of 2^-kOutputFractionBits
  std::int64_t hidden = 0;            // of outputs
  Imatrix imatrix;
  InputMoments moments;

  Saliency() = default;
  Saliency(std::int64_t group_count, std::int64_t layer_count, std::int64_t expert_count);

  std::int64_t index(std::int64_t group, std::int64_t layer, std::int64_t expert) const {
    return (group * layers + layer) * experts + expert;
  }
  std::int64_t& count(std::int64_t group, std::int64_t layer, std::int64_t expert);
  std::int64_t count(std::int64_t group, std::int64_t layer, std::int64_t expert) const;
  std::span<std::int64_t, kDigits> digits(Field field, std::int64_t group, std::int64_t layer, std::int64_t expert);
  std::span<const std::int64_t, kDigits> digits(Field field, std::int64_t group, std::int64_t layer,
                                                std::int64_t expert) const;

  Collected collected() const { return {!gram.empty(), !outputs.empty(), !imatrix.empty(), !moments.empty()}; }
  std::int64_t gram_index(std::int64_t layer, std::int64_t i, std::int64_t j) const {
    return (layer * pair_count(experts) + pair_index(i, j, experts)) * kDigits;
  }
  /// G of experts i <= j, rounded once. Digits have to be normalised.
  double gram_value(std::int64_t layer, std::int64_t i, std::int64_t j) const;

  /// Brings all digits to canonical form. @throws Error(numerics) naming field, layer and expert on overflow
  void normalise();
  /// Conservation: in every layer the counts over groups and experts add up to top_k * tokens.
  /// @throws Error(bug) naming the first layer where they do not
  void check_conservation(std::int64_t tokens, std::int64_t top_k) const;
};

/// That no sum over an expert's outputs can have left its range, which follows from count and max_abs: those of all
/// groups together. @throws Error(numerics) naming layer and expert
void check_output_range(const Saliency& saliency);

/// The sums over groups, per [layer, expert], as doubles rounded once from the exact sums.
struct FieldTotals {
  std::int64_t layers = 0, experts = 0;
  std::vector<std::int64_t> count;                      // [layers, experts]
  std::array<std::vector<double>, kFields.size()> sum;  // by Field, [layers, experts]
  std::vector<double> max_abs;                          // [layers, experts]
};
FieldTotals totals(const Saliency& saliency);

}  // namespace reap
