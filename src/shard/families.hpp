#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shard/checkpoint.hpp"
#include "shard/model.hpp"
#include "shard/w4a16.hpp"

namespace reap {

/// What a tensor is in the model.
enum class Part : std::uint8_t {
  // once per model
  embedding,
  final_norm,
  head,
  // once per layer
  input_norm,
  post_norm,
  q,
  k,
  v,
  o,
  q_norm,
  k_norm,
  // once per layer, axis 0 = experts: pruning slices their rows
  gate,
  gate_bias,
  // once per expert: pruning drops or renumbers them
  w1,
  w3,
  w2,
  // any tensor of an MTP module: copied whole or left out
  mtp,
};

/// The place of one tensor in the model. `scale` marks the scale_inv of that part's fp8 weight, `piece` one of the
/// tensors that its 4-bit weight is held in.
struct Claim {
  Part part;
  std::int32_t layer = -1;   // -1 for parts of the whole model
  std::int32_t expert = -1;  // -1 for parts that are not one expert's
  bool scale = false;
  W4Piece piece = W4Piece::none;
};

/// Reads the model from config.json. Every key the forward pass depends on is checked: an unknown model_type, a layer
/// type, scoring function, activation or norm that we do not compute is refused, naming the key.
/// @throws Error(bad_input)
Model describe_model(const Checkpoint& checkpoint);

/// The model of a config.json alone, to plan with before its files are there: element types as it says (the router in
/// fp32), mtp_layers as many as it admits.
/// @param file  names it in errors
/// @throws Error(bad_input)
Model describe_config(const Json& config, const std::string& file);

/// One kind of tensor of a model: what it is, its shape, and how many there are.
struct TensorKind {
  Part part;
  std::vector<std::int64_t> shape;
  std::int64_t count;
  bool may_be_fp8;
};
/// All kinds but MTP tensors and the scales of fp8 weights.
std::vector<TensorKind> tensor_kinds(const Model& model);

/// Claims every tensor of the checkpoint exactly once, and checks dtypes, shapes and completeness.
/// @return [tensors] in the order of checkpoint.tensors()
/// @throws Error(bad_input) naming the tensor that is missing, unexpected, or of the wrong shape or dtype
std::vector<Claim> claim_tensors(const Checkpoint& checkpoint, const Model& model);

/// The checkpoint's name of a part ("model.layers.3.block_sparse_moe.experts.7.w1.weight"); not for Part::mtp.
std::string tensor_name(const Model& model, const Claim& claim);

}  // namespace reap
