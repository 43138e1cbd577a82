#include "driver/inspect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "driver/calibration.hpp"
#include "driver/hdf5.hpp"
#include "driver/inspect_parts.hpp"
#include "driver/plan.hpp"
#include "driver/state_file.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {
namespace {

constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";

/// The first bytes of a file, as many as there are up to the length of HDF5's signature.
std::string head_of(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string head(std::min<std::uint64_t>(file.size(), kHdf5Signature.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(head)));
  return head;
}

struct DomainLengths {
  std::int64_t samples = 0, tokens = 0;
};

std::string inspect_by_kind(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path))
    return list_generations(path).empty() ? inspect_model(path) : inspect_state(path);
  const std::string head = head_of(path);
  if (head.starts_with('{')) return inspect_plan(path);
  if (head != kHdf5Signature) {
    fail(ExitCode::bad_input, "{}: neither a model directory, nor a state, nor a calibration, saliency or plan file",
         path.string());
  }
  const Hdf5Reader file(path);
  const std::string schema = file.has_attribute("schema") ? file.text("schema") : "";
  if (schema.starts_with("reap-calibration-")) return inspect_calibration(path);
  if (schema.starts_with("reap-saliency-")) return inspect_saliency(path);
  if (schema.starts_with("reap-state-")) {
    fail(ExitCode::bad_input, "{}: part of a state; name the folder with its generations", path.string());
  }
  fail(ExitCode::bad_input, "{}: a HDF5 file, but of schema \"{}\": neither calibration nor saliency", path.string(),
       schema);
}

}  // namespace

std::string inspect(const std::filesystem::path& path) {
  std::string text = inspect_by_kind(path);
  // Names in a file may hold control characters, which a terminal would obey.
  std::ranges::replace_if(
      text, [](char c) { return c != '\n' && ((c >= 0 && c < ' ') || c == '\x7f'); }, '?');
  return text;
}

std::string inspect_line(std::string_view name, std::string_view value) {
  return fmt::format("  {:<20}{}\n", name, value);
}

std::string inspect_calibration(const std::filesystem::path& file) {
  const Calibration calibration = open_calibration(file, std::numeric_limits<std::int32_t>::max());
  const Samples& samples = calibration.samples;
  std::vector<std::int64_t> lengths;
  std::vector<DomainLengths> domains(calibration.domain_names.size());
  for (std::size_t i = 0; i + 1 < samples.offsets.size(); ++i) {
    lengths.push_back(samples.offsets[i + 1] - samples.offsets[i]);
    DomainLengths& domain = domains[samples.domain[i]];
    ++domain.samples;
    domain.tokens += lengths.back();
  }
  std::ranges::sort(lengths);

  std::string text = fmt::format("{}: calibration\n", file.string());
  text += inspect_line("digest", calibration_digest(calibration));
  text += inspect_line("tokenizer", calibration.tokenizer_sha256.empty() ? "not said" : calibration.tokenizer_sha256);
  text += inspect_line("samples", fmt::format("{}", samples.samples()));
  text += inspect_line("tokens", fmt::format("{}", samples.tokens()));
  text += inspect_line("sample length", fmt::format("{} at least, {} in the middle, {} at most", lengths.front(),
                                                    lengths[lengths.size() / 2], lengths.back()));
  text += fmt::format("\n  {:<20}{:>10} {:>12}\n", "domain", "samples", "tokens");
  for (std::size_t i = 0; i < domains.size(); ++i) {
    text +=
        inspect_line(calibration.domain_names[i], fmt::format("{:>10} {:>12}", domains[i].samples, domains[i].tokens));
  }
  return text;
}

std::string inspect_plan(const std::filesystem::path& file) {
  const Plan plan = read_plan(file);
  std::string text = fmt::format("{}: plan\n", file.string());
  text += inspect_line("model", fmt::format("{}, {}", plan.model_type, plan.model_digest));
  text += inspect_line("calibration", plan.calibration_digest);
  text += inspect_line("top-k", fmt::format("{}", plan.top_k));
  return text + "\n" + plan_table(plan);
}

}  // namespace reap
