#include "driver/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <fstream>
#include <sstream>

#include "driver/commands.hpp"
#include "driver/criteria.hpp"
#include "driver/option_values.hpp"
#include "driver/variants.hpp"
#include "driver/version.hpp"
#include "kernels/check.hpp"
#include "kernels/cuda_module.hpp"

namespace po = boost::program_options;

namespace reap {
namespace {

/// The texts of options whose value is not a plain number, path or list.
struct Texts {
  std::string compute = "bf16";
  std::string device = "auto";
  std::string transport = "auto";
  std::string cpu_isa = "auto";
  std::string part = "1/1";
  std::vector<std::string> collect = {"gram"};
  std::string allocation = "layer";
  std::string form = "ordinary";
  std::string memory_budget = "0";
  std::string weights = "auto";
  std::string max_shard_size = "5GB";
  std::string mtp = "drop";
  std::string quantize = "none";
  std::string format = "auto-round";
  std::string method = "default";
  std::string quantize_attention = "on";
  std::vector<std::string> domain_weights;
  std::vector<std::string> protect;
  std::string config;
  std::vector<std::string> ratios;
  std::vector<std::string> criteria = {"reap"};
  std::vector<std::string> auto_among = {"reap:0", "reap:0.25", "reap:0.5", "reap:0.75", "reap", "gram"};
  std::string outputs = "all";
};

/// A path option. Read as a string, because operator>> of a path stops at the first blank.
po::typed_value<std::string>* path_value(std::filesystem::path& path) {
  return po::value<std::string>()->notifier([&path](const std::string& text) { path = text; });
}

po::typed_value<std::vector<std::string>>* paths_value(std::vector<std::filesystem::path>& paths) {
  return po::value<std::vector<std::string>>()->multitoken()->notifier(
      [&paths](const std::vector<std::string>& texts) { paths.assign(texts.begin(), texts.end()); });
}

po::options_description file_options(Options& o) {
  po::options_description group("Files");
  auto add = group.add_options();
  add("model,m", path_value(o.model), "checkpoint directory (Hugging Face layout)");
  add("calibration,c", path_value(o.calibration), "tokenised samples (HDF5, docs/format/calibration.md)");
  add("eval", path_value(o.heldout),
      "run: tokenised samples that the plans are measured on before they are carried out; not those of --calibration");
  add("saliency,s", path_value(o.saliency),
      "saliency file: written by observe and merge, read by plan (docs/format/saliency.md)");
  add("subtract", paths_value(o.subtract), "merge: saliency files to take out of the sum again");
  add("plan,p", paths_value(o.plans),
      "plan.json: written by plan, read by prune, any number of them by eval (docs/format/plan.md)");
  add("heldout", path_value(o.heldout), "eval: samples to predict, in the format of --calibration");
  add("compare", paths_value(o.compare),
      "eval: folders of models made from --model, pruned or in 4 bits; each is compared with it in a pass of its own");
  add("evaluation", path_value(o.evaluation), "eval: the file to write (docs/format/evaluation.md)");
  add("output,o", path_value(o.output),
      "run: folder of all results; prune: the pruned model; verify: the model to prove");
  return group;
}

po::options_description compute_options(Options& o, Texts& t) {
  po::options_description group("Computing (the results do not depend on grid and threads)");
  auto add = group.add_options();
  add("compute", po::value(&t.compute)->default_value(t.compute), "type of the matrix products: bf16 or fp32");
  add("block-tokens", po::value(&o.block_tokens)->default_value(o.block_tokens),
      "tokens per block, the unit of computing; part of a run's identity");
  add("collect", po::value(&t.collect)->multitoken()->default_value(t.collect, "gram"),
      "observe, run: what to sum besides the fields: gram (for criterion gram), outputs (for --form substitution), "
      "imatrix (squares of the inputs of linear layers), moments (products of those, for --method gptq; on CPUs), "
      "none");
  add("part", po::value(&t.part)->default_value(t.part),
      "observe: I/N does share I, from 1, of N shares of the calibration file; merge puts them together");
  add("samples-per-domain", po::value(&o.samples_per_domain)->default_value(0),
      "of the held-out samples only the first so many samples of each domain; 0 = all");
  add("pp", po::value(&o.grid.pp)->default_value(0), "pipeline stages; ranks = pp * ep * dp; 0 = chosen");
  add("ep", po::value(&o.grid.ep)->default_value(0), "expert shards; 0 = chosen");
  add("dp", po::value(&o.grid.dp)->default_value(0), "data replicas; 0 = chosen");
  add("device", po::value(&t.device)->default_value(t.device),
      "cuda: GPUs; cpu; auto: GPUs where every rank has one; the bits depend on it");
  add("transport", po::value(&t.transport)->default_value(t.transport),
      "between ranks, nccl: from GPU to GPU; mpi: through host memory; auto: nccl where every rank has a GPU of its "
      "own");
  add("threads", po::value(&o.threads)->default_value(0), "threads per rank; 0 = cores of the node / ranks on it");
  add("cpu-isa", po::value(&t.cpu_isa)->default_value(t.cpu_isa),
      "newest CPU instructions to use: avx2, avx512, avx512_bf16, amx or auto; the bits depend on it");
  add("memory-budget", po::value(&t.memory_budget)->default_value(t.memory_budget),
      "memory a rank may use for the pass, e.g. 64GB; 0 = memory of the node / ranks on it");
  add("weights", po::value(&t.weights)->default_value(t.weights),
      "resident: all layers of a rank at once; stream: one at a time, the next read meanwhile; auto: resident when "
      "they fit");
  add("machine", po::value(&o.machine)->multitoken(),
      "what the choice of the grid goes by, any of: a kind (cpu, h200, h100, a100), a JSON file, key=value "
      "(docs/estimate.md)");
  add("scratch", path_value(o.scratch),
      "folder on a local disk for hidden states when weights are streamed; without it they stay in memory");
  return group;
}

po::options_description estimate_options(Options& o) {
  po::options_description group("Estimate");
  auto add = group.add_options();
  add("ranks", po::value(&o.ranks)->default_value(0), "ranks to estimate for; 0 = those of this job");
  add("tokens", po::value(&o.tokens)->default_value(o.tokens), "without --calibration: its tokens");
  add("longest", po::value(&o.longest)->default_value(o.longest), "without --calibration: tokens of a sample");
  add("probe", po::bool_switch(&o.probe),
      "measure this machine for a few seconds: products, memory, files of --model, writing to --output, links");
  add("json", po::bool_switch(&o.json), "estimate, inspect of saliency: print JSON");
  return group;
}

po::options_description resume_options(Options& o) {
  po::options_description group("Going on after an interruption");
  auto add = group.add_options();
  add("state", path_value(o.state),
      "folder for the state of an unfinished run: the same command goes on from it, on any grid; SIGUSR1 and SIGTERM "
      "save it and end the run with exit code 75");
  add("checkpoint-minutes", po::value(&o.checkpoint_minutes)->default_value(o.checkpoint_minutes, "10"),
      "with --state: minutes between saves");
  add("timeout", po::value(&o.timeout_seconds)->default_value(o.timeout_seconds, "600"),
      "seconds without progress after which a job with a dead or stuck rank ends; 0 = never");
  return group;
}

po::options_description plan_options(Options& o, Texts& t) {
  po::options_description group("Plan");
  auto add = group.add_options();
  add("ratio,r", po::value(&t.ratios)->multitoken(),
      "share of experts to drop per layer, floor(experts * ratio); several, with blanks or commas between, make "
      "several "
      "outputs");
  add("keep", po::value(&o.plan_request.keep)->default_value(0), "experts to keep per layer, instead of --ratio");
  add("criterion", po::value(&t.criteria)->multitoken()->default_value(t.criteria, "reap"),
      fmt::format("{}; ALPHA from 0 to 1; in run with --eval also auto: the best of --auto-among; several make several "
                  "outputs",
                  fmt::join(criterion_names(), ", "))
          .c_str());
  add("auto-among",
      po::value(&t.auto_among)
          ->multitoken()
          ->default_value(t.auto_among, "reap:0 reap:0.25 reap:0.5 reap:0.75 reap gram"),
      "criteria that auto chooses from: by KL on one half of the held-out samples");
  add("keep-multiple", po::value(&o.plan_request.keep_multiple)->default_value(1),
      "round the kept count up to a multiple of this (8 suits expert parallel serving)");
  add("preserve-super-experts", po::bool_switch(&o.plan_request.preserve_super_experts),
      "never drop experts whose largest activation stands out (docs/numerics.md)");
  add("domain-weight", po::value(&t.domain_weights)->multitoken(),
      "DOMAIN=NUMBER: how much a domain of the calibration counts, e.g. code=2 prose=0.5; others count 1, 0 leaves one "
      "out");
  add("protect", po::value(&t.protect)->multitoken(),
      "DOMAIN:SHARE: keep experts that carry more than this share of a domain's saliency in their layer, e.g. "
      "code:0.1");
  add("starved", po::value(&o.starved)->default_value(o.starved),
      "inspect: experts with fewer tokens than this count as starved");
  add("allocation", po::value(&t.allocation)->default_value(t.allocation),
      "layer: every layer drops as many; global: all layers share one budget (criterion gram; for eval and --form "
      "substitution)");
  add("seed", po::value(&o.plan_request.seed)->default_value(0), "seed of criterion random");
  return group;
}

po::options_description output_options(Options& o, Texts& t) {
  po::options_description group("Output");
  auto add = group.add_options();
  add("max-shard-size", po::value(&t.max_shard_size)->default_value(t.max_shard_size),
      "largest safetensors file, e.g. 5GB, 500MB, 4GiB");
  add("form", po::value(&t.form)->default_value(t.form),
      "prune: ordinary; or substitution: dropped experts become constants, their mean outputs (BF16 models)");
  add("mtp", po::value(&t.mtp)->default_value(t.mtp), "tensors of multi-token-prediction modules: drop or keep");
  add("overwrite", po::bool_switch(&o.write.overwrite),
      "replace existing outputs, each once its successor is complete");
  add("write", po::value(&t.outputs)->default_value(t.outputs),
      "run: which variants become pruned models: all, none, or, with --eval, best: of each size the one that does "
      "best");
  add("verify", po::value(&o.verify)->default_value(true), "run, prune: re-read every output and prove it (1 or 0)");
  return group;
}

po::options_description quantize_options(Options& o, Texts& t) {
  po::options_description group("Weights of 4 bits (docs/format/w4a16.md)");
  auto add = group.add_options();
  add("quantize", po::value(&t.quantize)->default_value(t.quantize),
      "run: none: models with the source's weights; w4a16: with 4-bit ones instead; both: each model both ways");
  add("format", po::value(&t.format)->default_value(t.format), "auto-round, gptq or compressed-tensors");
  add("method", po::value(&t.method)->default_value(t.method),
      "rtn: scales by the largest weight; opt-rtn: the best of 181 scales; default: opt-rtn for attention, rtn for "
      "experts; gptq: scales of opt-rtn, and weights that make up for the rounding of others (needs moments)");
  add("group-size", po::value(&o.w4a16.group)->default_value(o.w4a16.group),
      "inputs that share a scale: 128, 64 or 32; 0 = the largest that fits the model and --serve-tp");
  add("imatrix", path_value(o.imatrix),
      "importance of inputs, for opt-rtn (HDF5, docs/format/imatrix.md); verify needs the same file");
  add("imatrix-after-prune", po::bool_switch(&o.imatrix_after_prune),
      "run: importance of what each plan leaves, by a calibration pass of its own with the pruned model's routing");
  add("imatrix-tokens", po::value(&o.imatrix_tokens)->default_value(o.imatrix_tokens),
      "with importance of a saliency file: inputs of experts that saw fewer tokens count alike");
  add("exclude", po::value(&o.w4a16.exclude)->multitoken(),
      "layers that stay as they are, by name; * stands for anything: '*.layers.0.*'");
  add("quantize-attention", po::value(&t.quantize_attention)->default_value(t.quantize_attention),
      "on, or off: experts only");
  add("serve-tp", po::value(&o.write.serving.tensor_parallel)->default_value(o.write.serving.tensor_parallel),
      "ranks of tensor parallelism that the output has to suit");
  add("serve-ep", po::value(&o.write.serving.expert_parallel)->default_value(o.write.serving.expert_parallel),
      "likewise, of expert parallelism");
  return group;
}

po::options_description report_options(Options& o, Texts& t) {
  po::options_description group("Reporting");
  auto add = group.add_options();
  add("log-dir", path_value(o.log_dir), "folder for a log file per rank");
  add("metrics", path_value(o.metrics), "append progress and timings to this file, a JSON object a line");
  add("config", po::value(&t.config), "ini file with any of these options, as name = value; the command line wins");
  add("help,h", "this text; after a command, what that command does and needs");
  add("version", "version, and the CUDA devices of this machine");
  return group;
}

void apply_texts(Options& o, const Texts& t) {
  o.compute = one_of<Compute>(t.compute, "compute", {{"bf16", Compute::bf16}, {"fp32", Compute::fp32}});
  o.device = one_of<DeviceChoice>(
      t.device, "device",
      {{"auto", DeviceChoice::automatic}, {"cuda", DeviceChoice::cuda}, {"cpu", DeviceChoice::cpu}});
  o.transport = one_of<TransportChoice>(
      t.transport, "transport",
      {{"auto", TransportChoice::automatic}, {"mpi", TransportChoice::mpi}, {"nccl", TransportChoice::nccl}});
  o.cpu_isa = one_of<CpuIsa>(t.cpu_isa, "cpu-isa",
                             {{"auto", CpuIsa::automatic},
                              {"avx2", CpuIsa::avx2},
                              {"avx512", CpuIsa::avx512},
                              {"avx512_bf16", CpuIsa::avx512_bf16},
                              {"amx", CpuIsa::amx}});
  o.part = parse_part(t.part);
  o.collected = parse_collect(t.collect);
  o.plan_request.allocation =
      one_of<Allocation>(t.allocation, "allocation", {{"layer", Allocation::layer}, {"global", Allocation::global}});
  o.write.mtp = one_of<Mtp>(t.mtp, "mtp", {{"drop", Mtp::drop}, {"keep", Mtp::keep}});
  o.weight_bits = one_of<WeightBits>(
      t.quantize, "quantize", {{"none", WeightBits::source}, {"w4a16", WeightBits::w4a16}, {"both", WeightBits::both}});
  o.w4a16.format = one_of<W4Format>(t.format, "format",
                                    {{"auto-round", W4Format::auto_round},
                                     {"gptq", W4Format::gptq},
                                     {"compressed-tensors", W4Format::compressed_tensors}});
  o.w4a16.method = one_of<W4Method>(t.method, "method",
                                    {{"default", W4Method::automatic},
                                     {"rtn", W4Method::rtn},
                                     {"opt-rtn", W4Method::opt_rtn},
                                     {"gptq", W4Method::gptq}});
  o.w4a16.attention = one_of<bool>(t.quantize_attention, "quantize-attention", {{"on", true}, {"off", false}});
  o.write.form = one_of<Form>(t.form, "form", {{"ordinary", Form::ordinary}, {"substitution", Form::substitution}});
  o.write.max_shard_bytes = parse_bytes(t.max_shard_size, "max-shard-size");
  o.memory_budget = parse_bytes(t.memory_budget, "memory-budget");
  o.ratios = parse_numbers(t.ratios, "ratio");
  o.criteria = parse_criteria(t.criteria, o.command == "run");
  o.auto_among = parse_criteria(t.auto_among, false);
  o.outputs = one_of<OutputChoice>(
      t.outputs, "write", {{"all", OutputChoice::all}, {"best", OutputChoice::best}, {"none", OutputChoice::none}});
  o.plan_request.domain_weights = parse_domain_numbers(t.domain_weights, '=', "domain-weight");
  o.plan_request.protect = parse_domain_numbers(t.protect, ':', "protect");
  o.weights = one_of<WeightsMode>(
      t.weights, "weights",
      {{"auto", WeightsMode::automatic}, {"resident", WeightsMode::resident}, {"stream", WeightsMode::stream}});
}

/// Only eval takes several plans.
void settle_plan(Options& o) {
  if (o.plans.empty()) return;
  o.plan = o.plans.front();
  if (o.plans.size() == 1 || o.command == "eval") return;
  fail(ExitCode::usage, "--plan names {} files; {} takes one", o.plans.size(), o.command);
}

void check_ranges(const Options& o) {
  const auto at_least = [](const char* option, std::int64_t value, std::int64_t least) {
    if (value < least) fail(ExitCode::usage, "--{} {}: must be at least {}", option, value, least);
  };
  at_least("block-tokens", o.block_tokens, 1);
  at_least("samples-per-domain", o.samples_per_domain, 0);
  at_least("pp", o.grid.pp, 0);
  at_least("ep", o.grid.ep, 0);
  at_least("dp", o.grid.dp, 0);
  at_least("threads", o.threads, 0);
  at_least("ranks", o.ranks, 0);
  at_least("tokens", o.tokens, 1);
  at_least("longest", o.longest, 1);
  at_least("starved", o.starved, 0);
  at_least("imatrix-tokens", o.imatrix_tokens, 1);
  at_least("keep", o.plan_request.keep, 0);
  at_least("keep-multiple", o.plan_request.keep_multiple, 1);
  at_least("max-shard-size", o.write.max_shard_bytes, 1);
  at_least("serve-tp", o.write.serving.tensor_parallel, 1);
  at_least("serve-ep", o.write.serving.expert_parallel, 1);
  if (const std::int64_t group = o.w4a16.group; group != 0 && group != 32 && group != 64 && group != 128) {
    fail(ExitCode::usage, "--group-size {}: must be 128, 64, 32, or 0 for the largest that fits", group);
  }
  if (!(o.checkpoint_minutes > 0))
    fail(ExitCode::usage, "--checkpoint-minutes {}: must be above 0", o.checkpoint_minutes);
  if (!(o.timeout_seconds >= 0)) fail(ExitCode::usage, "--timeout {}: must be at least 0", o.timeout_seconds);
  for (const double ratio : o.ratios) {
    if (!(ratio >= 0 && ratio < 1)) fail(ExitCode::usage, "--ratio {}: must be at least 0 and below 1", ratio);
  }
  if (!o.calibration.empty() && !o.collected.gram && std::ranges::find(o.criteria, "gram") != o.criteria.end()) {
    fail(ExitCode::usage, "--criterion gram needs what --collect gram sums");
  }
  if (o.plan_request.keep > 0 && !o.ratios.empty()) fail(ExitCode::usage, "--keep and --ratio exclude each other");
}

std::string as_text(const po::variable_value& value) {
  const boost::any& any = value.value();
  if (const auto* v = boost::any_cast<std::string>(&any)) return *v;
  if (const auto* v = boost::any_cast<std::int64_t>(&any)) return fmt::format("{}", *v);
  if (const auto* v = boost::any_cast<std::uint64_t>(&any)) return fmt::format("{}", *v);
  if (const auto* v = boost::any_cast<int>(&any)) return fmt::format("{}", *v);
  if (const auto* v = boost::any_cast<double>(&any)) return fmt::format("{}", *v);
  if (const auto* v = boost::any_cast<bool>(&any)) return *v ? "1" : "0";
  if (const auto* v = boost::any_cast<std::vector<double>>(&any)) return fmt::format("{}", fmt::join(*v, " "));
  if (const auto* v = boost::any_cast<std::vector<std::string>>(&any)) return fmt::format("{}", fmt::join(*v, " "));
  return "";
}

bool takes(const Command& command, const std::string& option) {
  const std::string all = fmt::format(" {} timeout log-dir metrics config help version ", command.takes);
  return all.find(" " + option + " ") != std::string::npos;
}

/// An option that a command would not look at is a misunderstanding. Those of an ini file may serve several commands.
void refuse_idle_options(const po::parsed_options& given, const Command& command) {
  for (const auto& option : given.options) {
    if (option.position_key >= 0 || takes(command, option.string_key)) continue;
    fail(ExitCode::usage, "--{} is no option of {}; reap_dist {} --help says what it takes", option.string_key,
         command.name, command.name);
  }
}

/// Options of a 4-bit model where none is written would have no effect.
void refuse_idle_quantize_options(const Options& o, const po::options_description& group,
                                  const po::variables_map& values) {
  if (o.command != "run" || o.weight_bits != WeightBits::source) return;
  for (const auto& option : group.options()) {
    const auto found = values.find(option->long_name());
    if (found == values.end() || found->second.defaulted() || option->long_name() == "quantize") continue;
    fail(ExitCode::usage, "--{} is of 4-bit models, and none is asked for: give --quantize w4a16 or both",
         option->long_name());
  }
}

std::string version_text() {
  std::string text = fmt::format("reap_dist {}\n", version());
  const CudaDevices cuda = find_cuda_devices();
  for (const CudaDevice& device : cuda.devices) text += fmt::format("cuda: {} at {}\n", device.name, device.bus_id);
  if (cuda.devices.empty()) text += fmt::format("cuda: no device: {}\n", cuda.why_none);
  return text;
}

constexpr unsigned kHelpWidth = 100;
constexpr unsigned kLeastTextWidth = 60;

/// The groups with the options that a command takes; all of them for null.
std::string options_text(const std::vector<po::options_description>& groups, const Command* command) {
  std::ostringstream out;
  for (const po::options_description& group : groups) {
    std::ostringstream whole;  // a group tells its caption only by printing it
    whole << group;
    po::options_description taken(kHelpWidth, kLeastTextWidth);
    for (const auto& option : group.options()) {
      if (command == nullptr || takes(*command, option->long_name())) taken.add(option);
    }
    if (!taken.options().empty()) out << "\n" << whole.str().substr(0, whole.str().find('\n') + 1) << taken;
  }
  return out.str();
}

std::string help_text(const std::vector<po::options_description>& groups, const Command* command) {
  std::ostringstream out;
  if (command != nullptr) {
    out << fmt::format("reap_dist {}: {}\n\n{}\n", command->name, command->summary, command->details)
        << options_text(groups, command);
    return out.str();
  }
  out << "reap_dist " << version()
      << ": prunes the experts of sparse Mixture-of-Experts checkpoints (REAP) on one or many ranks\n\n"
         "usage: reap_dist [command] [options]            or: mpirun -n N reap_dist [command] [options]\n\n"
         "Commands:\n";
  for (const Command& c : commands()) out << fmt::format("  {:<9} {}\n", c.name, c.summary);
  out << "\nExample: the whole job on two ranks, two outputs from one calibration pass\n"
         "  mpirun -n 2 reap_dist run --model MiniMax-M2 --calibration calib.h5 --ratio 0.25 0.5 --output results\n"
      << options_text(groups, nullptr)
      << "\nExit codes: 0 done, 2 usage, 3 bad input, 4 I/O or disk full, 5 non-finite numerics, 6 peer or "
         "communication,\n"
         "70 bug, 75 stopped on request (the same command goes on). docs/running.md says more.\n";
  return out.str();
}

void read_ini(const std::string& file, const po::options_description& known, po::variables_map& values) {
  std::ifstream in(file);
  if (!in || std::filesystem::is_directory(file)) fail(ExitCode::usage, "--config {}: cannot be opened", file);
  try {
    po::store(po::parse_config_file(in, known), values);
  } catch (const po::error& e) {
    fail(ExitCode::usage, "{}: {}", file, e.what());
  }
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv) {
  CommandLine result;
  Options& o = result.options;
  Texts t;
  const po::options_description four_bits = quantize_options(o, t);
  const std::vector<po::options_description> groups{
      file_options(o), compute_options(o, t), plan_options(o, t),  output_options(o, t),
      four_bits,       resume_options(o),     estimate_options(o), report_options(o, t)};
  po::options_description visible;
  for (const po::options_description& group : groups) visible.add(group);

  std::vector<std::string> words(argv + 1, argv + argc);
  const bool named = !words.empty() && !words[0].starts_with("-");
  if (named) {
    o.command = words[0];
    words.erase(words.begin());
  }
  const Command* command = find_command(o.command);
  if (command == nullptr) {
    fail(ExitCode::usage, "unknown command '{}'; reap_dist --help lists them", o.command);
  }

  po::options_description all = visible;
  std::vector<std::string> positional;
  all.add_options()("path", po::value(&positional));
  po::positional_options_description places;
  places.add("path", -1);
  po::variables_map values;
  try {
    // No guessing: an abbreviated option would change its meaning when a new option is added.
    const int style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    const po::parsed_options given = po::command_line_parser(words).options(all).positional(places).style(style).run();
    po::store(given, values);
    if (values.count("help") != 0) return {o, help_text(groups, named ? command : nullptr)};
    if (values.count("version") != 0) return {o, version_text()};
    refuse_idle_options(given, *command);
    if (values.count("config") != 0) read_ini(values["config"].as<std::string>(), visible, values);
    po::notify(values);
  } catch (const po::error& e) {
    fail(ExitCode::usage, "{}; reap_dist --help lists the options", e.what());
  }
  if (!positional.empty() && !command->takes.starts_with("path")) {
    fail(ExitCode::usage, "unexpected word '{}' after the options of {}", positional[0], o.command);
  }
  o.paths.assign(positional.begin(), positional.end());
  apply_texts(o, t);
  settle_plan(o);
  refuse_idle_quantize_options(o, four_bits, values);
  check_ranges(o);
  for (const auto& option : visible.options()) {
    const auto found = values.find(option->long_name());
    if (found != values.end()) o.effective.emplace_back(option->long_name(), as_text(found->second));
  }
  return result;
}

}  // namespace reap
