#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/backend.hpp"
#include "shard/w4a16.hpp"

namespace reap {

/// How the router of a MoE layer chooses: sigmoid scores, correction bias for the choice only, gates renormalised.
struct RouterSpec {
  std::int64_t experts;
  std::int64_t top_k;
};

struct ExpertSpec {
  std::int64_t inner;  // width between w1/w3 and w2
};

/// Weights of projections and experts that are held in 4 bits, symmetric.
struct W4Layout {
  W4Format format;
  std::int64_t group;  // consecutive inputs that share a scale
};

/// A model as plain data, read from config.json by families.cpp.
struct Model {
  std::string type;     // config.json's model_type
  std::int64_t layers;  // decoder layers, all of them MoE; MTP modules not counted
  std::int64_t hidden;
  std::int64_t vocab;
  float norm_eps;
  AttentionShape attention;
  RouterSpec router;
  ExpertSpec expert;
  std::optional<W4Layout> w4;
  bool fp8;  // projection and expert weights are f8_e4m3 with scales per 128 x 128 block
  // As stored: those weights where they are not fp8 (F32 models have 4), and the embedding.
  // 4-bit weights are expanded when they are loaded: they count as F32 here.
  std::int64_t weight_element_bytes = 2, embedding_element_bytes = 2;
  std::int64_t mtp_layers;  // layers [layers, layers + mtp_layers) hold MTP tensors
};

}  // namespace reap
