#include "driver/write_output.hpp"

#include <fmt/format.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "driver/finished_output.hpp"
#include "driver/quantize.hpp"
#include "driver/share_out.hpp"
#include "driver/staging.hpp"
#include "driver/stop_request.hpp"
#include "driver/verify.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const Staging& staging, const std::string& other) {
  fail(ExitCode::bad_input, "{}: exists and {}; move it away or give --overwrite", staging.output().string(), other);
}

/// Reports writing and proving as phases of the job.
class Phases {
 public:
  Phases(Job& job, const Source& source, const Plan& plan, const WriteOptions& options) : job_{job} {
    job.world.all_try([&] {
      for (const OutputFile& file : plan_output(source.checkpoint, source.model, source.claims, plan, options)) {
        bytes_.push_back(file.bytes);
      }
    });
  }

  void write(const WriteWork& work, const fs::path& output) const {
    if (work.kept_files > 0) {
      job_.log.info(fmt::format("{}: {} of {} files, {}, are finished already; {} are left to write", output.string(),
                                work.kept_files, bytes_.size(), readable_bytes(work.kept_bytes),
                                readable_bytes(work.bytes)));
    }
    job_.progress.begin("write", "bytes", work.bytes, work.own_bytes);
  }

  void verify() const {
    std::uint64_t total = 0, own = 0;
    for (const std::uint64_t file : bytes_) total += file;
    for (const std::size_t file : share_out(bytes_, job_.world.size(), job_.world.rank())) own += bytes_[file];
    job_.progress.begin("verify", "bytes", static_cast<std::int64_t>(total), static_cast<std::int64_t>(own));
  }

  void advance(std::int64_t bytes) const {
    if (stop_requested()) fail(ExitCode::stopped, "stopped on request; run the same command again to go on");
    job_.progress.advance(bytes);
  }

  void end() const { job_.progress.end(); }

 private:
  Job& job_;
  std::vector<std::uint64_t> bytes_;  // of each file of the output
};

}  // namespace

void check_output(const Source& source, const std::vector<PlanRequest>& requests, const fs::path& output,
                  const WriteOptions& options) {
  for (const PlanRequest& request : requests) check_counts_of(request, options.form);
  const Staging staging(output);
  staging.recover();
  staging.check_place(source.checkpoint.directory());
  if (!staging.exists()) return;
  std::string other;
  for (const PlanRequest& request : requests) {
    other = output_difference(output, source.digest, request, options);
    if (other.empty()) return;
  }
  if (!options.overwrite) refuse(staging, other);
  staging.check(source.checkpoint.directory(), true);
}

bool all_is_finished(Job& job, const Source& source, const Plan& plan, const fs::path& output) {
  std::int64_t finished = 0;
  job.world.all_try([&] {
    if (job.world.rank() != 0) return;
    const Staging staging(output);
    staging.recover();
    if (!staging.exists()) return;
    const std::string other = output_difference(output, source.digest, plan, job.options.write);
    if (!other.empty() && !job.options.write.overwrite) refuse(staging, other);
    finished = other.empty() ? 1 : 0;
  });
  job.world.all_max(std::span(&finished, 1));
  if (finished == 0) return false;
  job.log.info(fmt::format("{}: finished by an earlier run; kept", output.string()));
  return true;
}

void all_write_output(Job& job, const Source& source, const Plan& plan, const fs::path& output,
                      const std::string& evaluation, std::shared_ptr<const MeanOutputs> means) {
  if (source.model.mtp_layers > 0 && job.options.write.mtp == Mtp::keep) {
    job.log.warn(
        "MTP tensors are kept whole: engines that build the draft model from num_local_experts will refuse them");
  }
  const std::unique_ptr<Quantizer> quantizer = job.options.write.quantize ? all_make_quantizer(job) : nullptr;
  WriteOptions options = job.options.write;
  options.evaluation = evaluation;
  options.means = std::move(means);
  const Phases phases(job, source, plan, options);
  std::string proof = "not verified";
  WriteEvents events;
  events.quantizer = quantizer.get();
  events.begin = [&](const WriteWork& work) { phases.write(work, output); };
  events.progress = [&](std::int64_t bytes) { phases.advance(bytes); };
  if (job.options.verify) {
    events.all_check = [&](const fs::path& written) {
      phases.end();
      phases.verify();
      const VerifyReport report = all_verify(job.world, source.checkpoint.directory(), written, events.progress,
                                             quantizer.get(), options.means.get());
      proof = fmt::format("{} tensors, {}; {}", report.tensors, readable_bytes(report.bytes), report.finding());
    };
  }
  all_write_checkpoint(job.world, source.checkpoint, source.model, plan, output, options, events);
  phases.end();
  job.log.info(fmt::format("{}: {} experts per layer, {}", output.string(), plan.kept, proof));
}

}  // namespace reap
