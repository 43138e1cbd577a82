#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "shard/checkpoint.hpp"
#include "shard/families.hpp"
#include "shard/model.hpp"

namespace reap {

/// Tensors, what they hold, and their bytes as stored. Scales belong to their weights: tensors and bytes, no
/// parameters.
struct Stock {
  std::int64_t tensors = 0, parameters = 0, bytes = 0;
  Stock& operator+=(const Stock& other);
};
Stock operator*(std::int64_t count, const Stock& stock);

/// What a model's files hold, by what becomes of it when experts are pruned.
struct Inventory {
  Stock fixed;   // stays as it is; tensors of the router, too, whose rows are counted below
  Stock expert;  // one expert in all layers: its matrices and its rows of the router
  Stock mtp;
  std::int64_t experts = 0;

  /// With `kept` experts per layer, and without MTP tensors.
  Stock left(std::int64_t kept) const;
  Stock whole() const;  // all there is
};

/// The parameters that a tensor holds. Scales and the like belong to their weights.
std::int64_t parameters_of(const Tensor& tensor, const Claim& claim);

Inventory count_tensors(const Checkpoint& checkpoint, const Model& model, const std::vector<Claim>& claims);

/// As the family describes the model: bf16 or what config.json says, fp8 with its scales where it is quantised, the
/// router in fp32, no MTP tensors.
Inventory count_tensors(const Model& model);

/// A model folder of which only config.json has to be there.
struct ModelFolder {
  Model model;
  Inventory inventory;
  bool from_headers = false;  // else from config.json, and the index where there is one
  std::string note;           // what was not there, for the user
};
/// @throws Error(bad_input) when config.json is not there, or what is there is not a model
ModelFolder open_model_folder(const std::filesystem::path& directory);

}  // namespace reap
