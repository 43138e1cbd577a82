#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/families.hpp"
#include "shard/model.hpp"

namespace reap {

/// The checkpoint a job works on, opened, understood and checked.
struct Source {
  Checkpoint checkpoint;
  Model model;
  std::vector<Claim> claims;  // by tensor of the checkpoint
  std::string digest;         // model_digest()
};

/// Opens the checkpoint on every rank. Collective. @throws SharedError
Source all_open_source(const Comm& world, const std::filesystem::path& directory);

}  // namespace reap
