#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "driver/log.hpp"
#include "driver/machine.hpp"
#include "driver/options.hpp"
#include "driver/planner.hpp"
#include "shard/comm.hpp"
#include "shard/inventory.hpp"
#include "shard/workload.hpp"

namespace reap {

/// A pruned model to be.
struct OutputEstimate {
  std::int64_t kept = 0;  // experts per layer
  Stock left;
  double seconds = 0;            // writing and proving it
  std::int64_t w4a16_bytes = 0;  // with weights of 4 bits, in the format that is asked for; 0 = no group fits
};

/// All that the command says, as text or as JSON.
struct Estimate {
  std::filesystem::path directory;
  ModelFolder folder;
  Workload work;
  std::string samples;  // where the workload is from
  Machine machine;
  int ranks = 1;
  std::int64_t memory_bytes = 0;
  std::vector<Candidate> candidates;
  int chosen = -1;  // among candidates; -1 = nothing fits
  std::string why;  // it was chosen, or what would fit
  std::vector<OutputEstimate> outputs;
  std::int64_t saliency_bytes = 0;
  std::int64_t scratch_bytes = 0;  // of the chosen candidate, on all ranks
  std::int64_t free_bytes = -1;    // where the outputs go; -1 = not asked
};

std::string estimate_table(const Estimate& estimate);
std::string estimate_json(const Estimate& estimate);

/// Reads config.json, the index and headers, never weights. The same on every rank. Collective. @throws SharedError
Estimate all_estimate(const Comm& world, const Options& options, Log& log);

}  // namespace reap
