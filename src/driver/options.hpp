#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "driver/calibration_parts.hpp"
#include "driver/plan.hpp"
#include "driver/write_checkpoint.hpp"
#include "kernels/backend.hpp"
#include "shard/placement.hpp"

namespace reap {

/// What ranks compute on; automatic = GPUs where every rank has one.
enum class DeviceChoice : std::uint8_t { automatic, cuda, cpu };

/// How data gets from rank to rank; automatic = NCCL where every rank has a GPU of its own.
enum class TransportChoice : std::uint8_t { automatic, mpi, nccl };

/// Which variants of a sweep are written as pruned models; best = of each size the one with the lowest KL.
enum class OutputChoice : std::uint8_t { all, best, none };

/// With which weights a run writes its models: as the source has them, in 4 bits, or once each way.
enum class WeightBits : std::uint8_t { source, w4a16, both };

/// What the user asked for. The defaults here are the program's defaults.
struct Options {
  std::string command = "run";

  // Files
  std::filesystem::path model;
  std::filesystem::path calibration;
  std::filesystem::path saliency;
  std::filesystem::path plan;                // where one is meant
  std::vector<std::filesystem::path> plans;  // all that were given
  std::filesystem::path heldout;
  std::filesystem::path evaluation;
  std::vector<std::filesystem::path> compare;  // models that eval compares with `model`
  std::filesystem::path output;
  std::vector<std::filesystem::path> paths;     // of inspect and merge
  std::vector<std::filesystem::path> subtract;  // of merge

  // Computing
  Compute compute = Compute::bf16;
  std::int64_t block_tokens = 4096;
  PartChoice part;  // of the calibration file
  Collected collected = {.gram = true};
  std::int64_t samples_per_domain = 0;  // of the held-out file; 0 = all
  Grid grid;                            // 0 = chosen
  int threads = 0;                      // per rank; 0 = cores of the node / ranks on it
  DeviceChoice device = DeviceChoice::automatic;
  TransportChoice transport = TransportChoice::automatic;
  CpuIsa cpu_isa = CpuIsa::automatic;
  std::int64_t memory_budget = 0;  // bytes per rank; 0 = memory of the node / ranks on it
  WeightsMode weights = WeightsMode::automatic;
  std::vector<std::string> machine;  // words of describe_machine()
  std::filesystem::path scratch;     // folder for the hidden states of a wave; empty = in memory

  // Estimate
  int ranks = 0;                    // 0 = those of this job
  std::int64_t tokens = 1'000'000;  // where there is no calibration file
  std::int64_t longest = 2048;      // tokens of a sample
  bool probe = false;
  bool json = false;

  // Going on after an interruption
  std::filesystem::path state;  // folder; empty = none
  double checkpoint_minutes = 10;
  double timeout_seconds = 600;  // without progress of a peer; 0 = for ever

  // Plan
  std::vector<double> ratios;
  std::vector<std::string> criteria;    // canonical, or kAutomatic
  std::vector<std::string> auto_among;  // canonical
  PlanRequest plan_request;             // what all plans of a run share

  // Inspect
  std::int64_t starved = 100;  // tokens below which an expert is starved

  // Output
  WriteOptions write;
  OutputChoice outputs = OutputChoice::all;
  bool verify = true;

  // Weights of 4 bits
  WeightBits weight_bits = WeightBits::source;
  QuantizeOptions w4a16;          // as asked for; write.quantize is what is in effect
  std::filesystem::path imatrix;  // importance of inputs; empty = all alike
  bool imatrix_after_prune = false;
  std::int64_t imatrix_tokens = 32;  // below which inputs of an expert count alike, with importance of a saliency file

  // Reporting
  std::filesystem::path log_dir;
  std::filesystem::path metrics;

  /// Every option with its value in effect, in the order of --help.
  std::vector<std::pair<std::string, std::string>> effective;
};

/// What the command line comes to: options to run with, or a text to print instead (--help, --version).
struct CommandLine {
  Options options;
  std::string text;  // not empty: print it and exit with 0
};

/// Reads the command line and, if --config names one, an ini file (the command line wins).
/// @throws Error(usage) for anything that cannot be meant, naming the option
CommandLine parse_command_line(int argc, const char* const* argv);

}  // namespace reap
