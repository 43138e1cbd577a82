#include "driver/commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "driver/estimate.hpp"
#include "driver/eval.hpp"
#include "driver/inspect.hpp"
#include "driver/manifest.hpp"
#include "driver/merge.hpp"
#include "driver/observe.hpp"
#include "driver/quantize.hpp"
#include "driver/run.hpp"
#include "driver/verify.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

void observe(Job& job) {
  job.world.all_try([&] {
    if (job.options.saliency.empty()) fail(ExitCode::usage, "--saliency is missing: the file to write");
  });
  const Source source = all_open_source(job.world, job.options.model);
  all_observe_job(job, source, job.options.saliency);
}

/// A file that holds something else than this plan stays, unless it may be overwritten.
void replace_plan(const std::filesystem::path& file, const Plan& plan, bool overwrite) {
  constexpr std::uint64_t kMostBytes = 10'000'000'000;
  if (!overwrite && std::filesystem::exists(file) && InputFile(file).read_text(kMostBytes) != plan_text(plan)) {
    fail(ExitCode::bad_input, "{}: exists and is not this plan; name another file or give --overwrite", file.string());
  }
  write_plan(file, plan);
}

/// Plans are small: rank 0 makes them alone.
void plan(Job& job) {
  job.world.all_try([&] {
    const Options& o = job.options;
    if (o.saliency.empty()) fail(ExitCode::usage, "--saliency is missing: the file that observe has written");
    const std::size_t count = o.criteria.size() * std::max<std::size_t>(1, o.ratios.size());
    if (o.ratios.empty() && o.plan_request.keep == 0) fail(ExitCode::usage, "--ratio or --keep is missing");
    if (!o.plan.empty() && count > 1) fail(ExitCode::usage, "--plan names one file, but {} plans are asked for", count);
    if (job.world.rank() != 0) return;
    const SaliencyFile saliency = read_saliency_for_plans(o.saliency);
    for (const std::string& criterion : o.criteria) {
      for (const double ratio : o.ratios.empty() ? std::vector<double>{0} : o.ratios) {
        PlanRequest request = o.plan_request;
        request.criterion = criterion;
        request.ratio = ratio;
        const Plan made = make_plan(saliency, request);
        fmt::print("{}\n", plan_table(made));
        if (!o.plan.empty()) replace_plan(o.plan, made, o.write.overwrite);
      }
    }
  });
}

/// What verify will read of a pruned model.
std::int64_t safetensors_bytes(const std::filesystem::path& directory) {
  std::int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors") bytes += static_cast<std::int64_t>(entry.file_size());
  }
  return bytes;
}

/// What the errors of a 4-bit output were weighed with, from the file that is given for it; null where none was.
std::shared_ptr<const ImportanceSource> all_open_importance(Job& job) {
  const Options& o = job.options;
  const std::filesystem::path& file = o.imatrix.empty() ? o.saliency : o.imatrix;
  if (file.empty()) return nullptr;
  const Source source = all_open_source(job.world, o.model);
  std::shared_ptr<const ImportanceSource> importance;
  job.world.all_try([&] {
    const Manifest made = read_manifest(o.output);
    if (!made.quantize || made.quantize->importance.sha256.empty()) return;
    importance = open_importance(file, source, made.quantize->importance.least_tokens);
  });
  return importance;
}

void verify(Job& job) {
  const Options& o = job.options;
  job.world.all_try([&] {
    if (o.model.empty()) fail(ExitCode::usage, "--model is missing: the model that was pruned");
    if (o.output.empty()) fail(ExitCode::usage, "--output is missing: the pruned model to prove");
  });
  Options options = o;
  options.write.importance = all_open_importance(job);
  Job settled{job.world, options, job.log, job.progress, job.pulse};
  const std::unique_ptr<Quantizer> quantizer = all_make_quantizer(settled);
  std::int64_t bytes = 0;
  job.world.all_try([&] { bytes = safetensors_bytes(o.output); });
  job.progress.begin("verify", "bytes", bytes, bytes / job.world.size());
  std::optional<MeanOutputs> means;
  job.world.all_try([&] {
    if (o.saliency.empty()) return;
    const Manifest made = read_manifest(o.output);
    if (made.form != Form::substitution) return;
    means = read_mean_outputs(
        o.saliency, {made.source_digest, made.calibration_digest, made.compute, made.block_tokens, made.numerics_id});
  });
  const auto advance = [&](std::int64_t done) { job.progress.advance(done); };
  const VerifyReport report =
      all_verify(job.world, o.model, o.output, advance, quantizer.get(), means ? &*means : nullptr);
  job.progress.end();
  if (job.world.rank() != 0) return;
  fmt::print("{}: verified: {} experts per layer, {} tensors, {}; {}\n", o.output.string(), report.experts,
             report.tensors, readable_bytes(report.bytes), report.finding());
}

void estimate(Job& job) {
  const Estimate result = all_estimate(job.world, job.options, job.log);
  if (job.world.rank() == 0) fmt::print("{}", job.options.json ? estimate_json(result) : estimate_table(result));
}

void inspect_paths(Job& job) {
  job.world.all_try([&] {
    if (job.options.paths.empty()) fail(ExitCode::usage, "inspect: name a model folder or a file");
    if (job.world.rank() != 0) return;
    const Options& o = job.options;
    const StabilityRequest request{o.criteria, o.ratios, o.starved};
    for (const std::filesystem::path& path : o.paths) {
      fmt::print("{}\n", o.json ? inspect_json(path, request) : inspect(path, request));
    }
  });
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> kCommands = {
      {"run",
       "calibrate, decide and prune: one calibration pass, an output for every ratio and criterion (the default)",
       "Needs --model, --calibration, --output and --ratio (or --keep). The output folder gets saliency.h5 and, for "
       "every\n"
       "criterion and ratio, a pruned model `reap-0.25/` with its plan `reap-0.25.plan.json`. Without --calibration "
       "it\n"
       "works from the file that --saliency names, for example one of merge.\n\n"
       "  mpirun -n 8 reap_dist run --model MiniMax-M2 --calibration calib.h5 --ratio 0.25 0.5 --output results\n\n"
       "With --eval all plans are measured on held-out samples before any model is written, and --write says which "
       "are:\n\n"
       "  mpirun -n 8 reap_dist run --model MiniMax-M2 --calibration calib.h5 --eval heldout.h5 --output results \\\n"
       "      --ratio 0.25,0.3,0.4,0.5 --criterion reap,frequency auto --write best\n\n"
       "--quantize w4a16 writes the models with weights of 4 bits, in folders `reap-0.25-w4a16/`, as `quantize` "
       "does.\n",
       "model calibration eval samples-per-domain saliency output collect compute block-tokens pp ep dp device "
       "transport threads cpu-isa "
       "memory-budget "
       "weights machine "
       "scratch "
       "state checkpoint-minutes ratio keep criterion keep-multiple preserve-super-experts domain-weight protect "
       "allocation seed "
       "auto-among write quantize format method group-size imatrix imatrix-after-prune imatrix-tokens exclude "
       "quantize-attention serve-tp serve-ep max-shard-size mtp overwrite verify",
       run},
      {"observe", "the calibration pass alone: model + calibration -> saliency file",
       "Needs --model, --calibration and --saliency. The file serves any number of later plans. With --part I/N it is "
       "that\n"
       "of a share, and merge makes the whole of all shares.\n\n"
       "  mpirun -n 8 reap_dist observe --model MiniMax-M2 --calibration calib.h5 --saliency saliency.h5\n",
       "model calibration saliency part collect compute block-tokens pp ep dp device transport threads cpu-isa "
       "memory-budget "
       "weights machine "
       "scratch "
       "state checkpoint-minutes overwrite",
       observe},
      {"merge", "add saliency files of different samples, exactly, and take some out again",
       "Needs --saliency (the file to write) and the files to add. The sum does not depend on their order; all shares "
       "of\n"
       "an `observe --part` give the very file of a pass over the whole calibration file.\n\n"
       "  reap_dist merge --saliency all.h5 prose.h5 code.h5\n"
       "  reap_dist merge --saliency prose.h5 all.h5 --subtract code.h5\n",
       "path saliency subtract overwrite", merge},
      {"plan", "saliency file -> plan.json and a readable table; takes seconds, on any machine",
       "Needs --saliency and --ratio (or --keep); --plan names the file to write. Without --plan it only shows the "
       "table.\n\n"
       "  reap_dist plan --saliency saliency.h5 --ratio 0.25 --plan plan.json\n",
       "saliency plan ratio keep criterion keep-multiple preserve-super-experts domain-weight protect allocation seed "
       "overwrite",
       plan},
      {"eval", "how well a model predicts held-out samples, and how plans would change that; nothing is pruned",
       "Needs --model and --heldout. Perplexity by domain; with --plan, any number of plans are applied as masks in\n"
       "the same pass and compared with the unpruned model: KL divergence, top-1 agreement, overlap. With --compare "
       "so\n"
       "are models that were made from it. --evaluation keeps it as JSON.\n\n"
       "  mpirun -n 8 reap_dist eval --model MiniMax-M2 --heldout heldout.h5 --plan a.plan.json b.plan.json \\\n"
       "    --evaluation evaluation.json\n",
       "model heldout plan compare samples-per-domain evaluation compute block-tokens pp ep dp device transport "
       "threads "
       "cpu-isa "
       "memory-budget "
       "weights machine scratch overwrite",
       eval},
      {"prune", "model + plan.json -> pruned checkpoint, proved against the source",
       "Needs --model, --plan and --output (the new model's folder); with --form substitution also --saliency.\n\n"
       "  mpirun -n 8 reap_dist prune --model MiniMax-M2 --plan plan.json --output MiniMax-M2-pruned\n",
       "model plan saliency output form max-shard-size mtp overwrite verify", prune},
      {"quantize", "model -> the same model with weights of 4 bits (W4A16), as AutoRound writes it",
       "Needs --model (bf16, fp16, fp32 or block-scaled FP8; pruned or not) and --output (the new model's folder).\n"
       "Router, norms, embeddings and head stay as they are. docs/format/w4a16.md says what is written.\n\n"
       "--saliency, of observe --collect imatrix, weighs errors by the inputs' importance (opt-rtn); that of the "
       "model\n"
       "which --model was pruned from will do. Of observe --collect moments it is what --method gptq rounds by.\n\n"
       "  mpirun -n 8 reap_dist quantize --model MiniMax-M2-pruned --output MiniMax-M2-pruned-W4A16\n",
       "model output format method group-size imatrix saliency imatrix-tokens exclude quantize-attention serve-tp "
       "serve-ep device threads cpu-isa "
       "max-shard-size mtp overwrite verify",
       quantize},
      {"verify", "re-read a pruned checkpoint and prove that every tensor equals its slice of the source",
       "Needs --model (the source) and --output (the pruned model). With --saliency the constants of --form "
       "substitution\n"
       "are computed again; without it they are compared with the manifest. Weights of 4 bits need the --imatrix or\n"
       "--saliency that they were made with.\n\n"
       "  mpirun -n 8 reap_dist verify --model MiniMax-M2 --output MiniMax-M2-pruned\n",
       "model output saliency imatrix device threads cpu-isa", verify},
      {"estimate", "memory per rank, time, disk and the best grid, for a model and a machine; nothing is run",
       "Needs --model: a folder with config.json; the model itself need not be there yet. The choice is the one that "
       "run\n"
       "makes from the same --calibration, ranks, --memory-budget and --machine. docs/estimate.md holds the "
       "formulas.\n\n"
       "  reap_dist estimate --model MiniMax-M2 --ranks 8 --machine h200 --tokens 10000000\n",
       "model calibration output collect compute block-tokens part pp ep dp threads cpu-isa memory-budget weights "
       "machine scratch "
       "ratio keep keep-multiple mtp verify format quantize-attention serve-tp ranks tokens longest probe json",
       estimate},
      {"inspect", "what a model folder, calibration, saliency, plan, evaluation or state holds",
       "Takes any number of paths. Of a saliency file it also says how sure a cut would be, by default at 0.25 and 0.5 "
       "by "
       "reap;\n"
       "--ratio and --criterion name others, --json writes it for programs, a line per file.\n\n"
       "  reap_dist inspect MiniMax-M2 calib.h5 saliency.h5 plan.json\n"
       "  reap_dist inspect saliency.h5 --ratio 0.3 0.5 --criterion reap reap:0.5 frequency --json\n",
       "path ratio criterion starved json", inspect_paths},
  };
  return kCommands;
}

const Command* find_command(std::string_view name) {
  const auto found =
      std::find_if(commands().begin(), commands().end(), [&](const Command& c) { return c.name == name; });
  return found == commands().end() ? nullptr : &*found;
}

}  // namespace reap
