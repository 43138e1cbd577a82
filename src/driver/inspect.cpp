#include "driver/inspect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "driver/hdf5.hpp"
#include "driver/inspect_parts.hpp"
#include "driver/plan.hpp"
#include "driver/state_file.hpp"
#include "driver/sweep.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";

// Enough to tell what begins: HDF5's signature, or the first member of a JSON file of ours.
constexpr std::uint64_t kHeadBytes = 64;

/// The first bytes of a file, as many as there are up to kHeadBytes.
std::string head_of(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string head(std::min(file.size(), kHeadBytes), '\0');
  file.read(0, std::as_writable_bytes(std::span(head)));
  return head;
}

enum class Kind : std::uint8_t { model, state, plan, evaluation, calibration, saliency };

Kind kind_of(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return list_generations(path).empty() ? Kind::model : Kind::state;
  const std::string head = head_of(path);
  if (head.starts_with('{')) return head.find("\"reap-evaluation\"") < head.size() ? Kind::evaluation : Kind::plan;
  if (!head.starts_with(kHdf5Signature)) {
    fail(ExitCode::bad_input,
         "{}: neither a model directory, nor a state, nor a calibration, saliency, plan or evaluation file",
         path.string());
  }
  const Hdf5Reader file(path);
  const std::string schema = file.has_attribute("schema") ? file.text("schema") : "";
  if (schema.starts_with("reap-calibration-")) return Kind::calibration;
  if (schema.starts_with("reap-saliency-")) return Kind::saliency;
  if (schema.starts_with("reap-state-")) {
    fail(ExitCode::bad_input, "{}: part of a state; name the folder with its generations", path.string());
  }
  fail(ExitCode::bad_input, "{}: a HDF5 file, but of schema \"{}\": neither calibration nor saliency", path.string(),
       schema);
}

std::string inspect_by_kind(const std::filesystem::path& path, const StabilityRequest& request) {
  switch (kind_of(path)) {
    case Kind::model:
      return inspect_model(path);
    case Kind::state:
      return inspect_state(path);
    case Kind::plan:
      return inspect_plan(path);
    case Kind::evaluation:
      return inspect_evaluation(path);
    case Kind::calibration:
      return inspect_calibration(path);
    case Kind::saliency:
      return inspect_saliency(path, request);
  }
  REAP_CHECK(false, "a kind of file without a description");
  return "";
}

}  // namespace

std::string inspect(const std::filesystem::path& path, const StabilityRequest& request) {
  std::string text = inspect_by_kind(path, request);
  // Names in a file may hold control characters, which a terminal would obey.
  std::ranges::replace_if(
      text, [](char c) { return c != '\n' && ((c >= 0 && c < ' ') || c == '\x7f'); }, '?');
  return text;
}

std::string inspect_json(const std::filesystem::path& path, const StabilityRequest& request) {
  if (kind_of(path) != Kind::saliency) {
    fail(ExitCode::usage, "{}: --json is for saliency files; of other files inspect writes text only", path.string());
  }
  const SaliencyFile file = read_saliency(path);
  return stability_json(file, report_stability(file, request));
}

std::string inspect_line(std::string_view name, std::string_view value) {
  return fmt::format("  {:<20}{}\n", name, value);
}

std::string inspect_plan(const std::filesystem::path& file) {
  const Plan plan = read_plan(file);
  std::string text = fmt::format("{}: plan\n", file.string());
  text += inspect_line("model", fmt::format("{}, {}", plan.model_type, plan.model_digest));
  text += inspect_line("calibration", plan.calibration_digest);
  text += inspect_line("top-k", fmt::format("{}", plan.top_k));
  return text + "\n" + plan_table(plan);
}

std::string inspect_evaluation(const std::filesystem::path& file) {
  const Evaluation evaluation = read_evaluation(file);
  const std::string& calibration = evaluation.calibration_digest;
  std::string text = fmt::format("{}: evaluation\n", file.string());
  text += inspect_line("model", fmt::format("{}, {}", evaluation.model_type, evaluation.model_digest));
  text += inspect_line("held-out samples", fmt::format("{}, {} tokens, {}", evaluation.samples, evaluation.tokens,
                                                       evaluation.heldout_digest));
  text += inspect_line("calibration", calibration.empty() ? "of each plan its own" : calibration);
  text += inspect_line("computed in", fmt::format("{}, blocks of {} tokens, {}", evaluation.compute,
                                                  evaluation.block_tokens, evaluation.numerics));
  return text + "\n" + sweep_table(evaluation);
}

}  // namespace reap
