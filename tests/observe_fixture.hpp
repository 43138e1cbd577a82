#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "shard/checkpoint.hpp"
#include "shard/comm.hpp"
#include "shard/model.hpp"
#include "shard/pipeline.hpp"
#include "shard/placement.hpp"
#include "shard/saliency.hpp"
#include "shard/samples.hpp"

namespace reap::test {

/// Samples whose tokens lie in memory.
Samples samples_in_memory(std::vector<std::int64_t> offsets, std::vector<std::int32_t> tokens,
                          std::vector<std::uint8_t> domain, std::int64_t domains);

/// The samples of a calibration file, read without the program's own reader.
Samples read_samples(const std::filesystem::path& file);

/// A checkpoint and samples, ready for calibration passes on any grid.
class Observer {
 public:
  Observer(const std::filesystem::path& checkpoint, Samples samples, std::int64_t block_tokens);

  const Model& model() const { return model_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Samples& samples() const { return samples_; }
  const std::vector<Block>& blocks() const { return blocks_; }

  /// How a pass goes, besides its grid.
  struct Manner {
    Compute compute = Compute::fp32;
    Holding holding = {};
    std::filesystem::path scratch = {};
    StartingPoint start = {};
    PassEvents events = {};
    std::vector<KeptExperts> variants = {{}};
    Collected collected = {.gram = true, .outputs = true, .imatrix = true, .moments = true};
    ConnectDevices connect = {};
  };

  /// What `all_run` does with a pass on a grid. Collective over `comm`, whose size is that of the grid.
  void all_pass(const Comm& comm, const Grid& grid, const Manner& manner,
                const std::function<void(Pulse& pulse, const PassPlan& plan, Backend& backend)>& all_run) const;
  /// One calibration pass of a CPU backend with one thread. Collective over `comm`, whose size is that of the grid.
  Saliency all_run(const Comm& comm, const Grid& grid, const Manner& manner) const;
  Saliency all_run(const Comm& comm, const Grid& grid, Compute compute) const {
    return all_run(comm, grid, Manner{compute});
  }

 private:
  Checkpoint checkpoint_;
  Model model_;
  Samples samples_;
  std::vector<Block> blocks_;
};

}  // namespace reap::test
