#include "driver/quantize.hpp"

#include <fmt/format.h>

#include <numeric>

#include "driver/device.hpp"
#include "driver/importance_file.hpp"
#include "driver/resources.hpp"
#include "driver/starved_experts.hpp"
#include "driver/write_output.hpp"
#include "kernels/check.hpp"

namespace reap {

namespace {

/// What gptq cannot do without.
void check_moments(const Options& o) {
  if (o.w4a16.method != W4Method::gptq) return;
  if (!o.imatrix.empty()) fail(ExitCode::usage, "--method gptq and --imatrix: gptq takes all from a saliency file");
  const bool given = o.calibration.empty() ? !o.saliency.empty() : o.collected.moments || o.imatrix_after_prune;
  if (given) return;
  fail(ExitCode::usage, "--method gptq needs the moments of inputs: {}",
       o.calibration.empty() ? "give --saliency, a file of observe --collect moments" : "give --collect moments");
}

}  // namespace

Options with_w4a16(const Options& options, const Model& model, Log& log) {
  check_moments(options);
  Options settled = options;
  QuantizeOptions w4 = options.w4a16;
  if (w4.group == 0) {
    constexpr std::int64_t kUsual = 128;
    // Where no group fits, the usual one is refused with the reason.
    w4.group = largest_group(model, w4.attention, options.write.serving).value_or(kUsual);
    if (w4.group != kUsual) {
      log.info(fmt::format("groups of {}: those of {} do not fit the model's layers on --serve-tp {}", w4.group, kUsual,
                           options.write.serving.tensor_parallel));
    }
  }
  if (!options.imatrix.empty()) {
    settled.write.importance = std::make_shared<const ImportanceFile>(options.imatrix);
    w4.importance = {settled.write.importance->digest()};
  }
  settled.write.quantize = w4;
  return settled;
}

void use_importance(Options& options, const Source& source, const Plan& plan, const std::filesystem::path& file,
                    Log& log) {
  options.write.importance = open_importance(file, source, options.imatrix_tokens);
  options.write.importance_pending = false;
  const ImportanceSource& importance = *options.write.importance;
  importance.check_plan(plan);
  QuantizeOptions& w4 = *options.write.quantize;
  if (w4.method == W4Method::gptq && !importance.has_moments()) {
    fail(ExitCode::bad_input, "{}: holds no moments of inputs; observe with --collect moments", file.string());
  }
  const StarvedExperts starved = starved_experts(importance, w4, source, plan);
  w4.importance = {importance.digest(), importance.least_tokens(), count_of(starved)};
  log.info(fmt::format("importance of inputs: {}", file.string()));
  std::int64_t experts = 0;
  for (const LayerPlan& layer : plan.layers) experts += static_cast<std::int64_t>(layer.keep.size());
  for (const std::string& line : starved_lines(starved, experts, importance.least_tokens())) log.info(line);
}

std::unique_ptr<Quantizer> all_make_quantizer(Job& job) {
  const Options& o = job.options;
  const bool other_method = o.write.quantize && o.write.quantize->method != W4Method::gptq;
  const bool feeds_back = !other_method && o.write.importance && o.write.importance->has_moments();
  Device device = all_choose_device(job.world, o.device, job.log);
  if (feeds_back && device.gpu >= 0) {
    job.log.info("weights are rounded on CPUs: GPUs know no feedback");
    device = {};
  }
  const Resources resources = all_find_resources(job.world, job.log);
  std::unique_ptr<Quantizer> quantizer;
  job.world.all_try([&] {
    const int threads = o.threads > 0 ? o.threads : resources.threads;
    quantizer = std::make_unique<Quantizer>(make_backend(device, o.compute, threads, o.cpu_isa), o.write.importance);
  });
  return quantizer;
}

Plan keep_all(const Source& source) {
  Plan plan;
  plan.request.criterion = "none";
  plan.model_digest = source.digest;
  plan.model_type = source.model.type;
  plan.experts = source.model.router.experts;
  plan.kept = plan.experts;
  plan.top_k = source.model.router.top_k;
  LayerPlan all;
  all.keep.resize(static_cast<std::size_t>(plan.experts));
  std::iota(all.keep.begin(), all.keep.end(), 0);
  plan.layers.assign(static_cast<std::size_t>(source.model.layers), all);
  return plan;
}

void quantize(Job& job) {
  job.world.all_try([&] {
    if (job.options.model.empty()) fail(ExitCode::usage, "--model is missing: the checkpoint directory");
    if (job.options.output.empty()) fail(ExitCode::usage, "--output is missing: the folder for the 4-bit model");
    if (!job.options.imatrix.empty() && !job.options.saliency.empty()) {
      fail(ExitCode::usage, "--imatrix and --saliency: importance of inputs is taken from one of them");
    }
  });
  const Source source = all_open_source(job.world, job.options.model);
  const Plan plan = keep_all(source);
  Options options;
  job.world.all_try([&] {
    options = with_w4a16(job.options, source.model, job.log);
    check_serving(*options.write.quantize, source.model, source.model.router.experts, options.write.serving);
    if (!options.saliency.empty()) use_importance(options, source, plan, options.saliency, job.log);
  });
  for (const std::string& line : serving_advice(source.model)) job.log.warn(line);
  Job settled{job.world, options, job.log, job.progress, job.pulse};
  if (!all_is_finished(settled, source, plan, options.output)) all_write_output(settled, source, plan, options.output);
}

}  // namespace reap
