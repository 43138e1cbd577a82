#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "driver/inspect_parts.hpp"
#include "driver/progress.hpp"
#include "driver/state_file.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

std::string describe(const State& state) {
  const SaliencyInfo& info = state.info;
  const Snapshot& snapshot = state.snapshot;
  const std::int64_t layers = snapshot.saliency.layers;
  double passed = 0;  // tokens through layers
  for (std::size_t b = 0; b < state.rows.size(); ++b) {
    passed += static_cast<double>(state.rows[b]) * static_cast<double>(snapshot.next_layer[b]);
  }
  const double all = static_cast<double>(info.tokens) * static_cast<double>(layers);
  std::int64_t bytes = 0;
  std::set<std::int64_t> files;
  for (const HeldRecord& record : state.held) {
    bytes += state.bytes(record);
    files.insert(record.file);
  }
  std::string text = inspect_line("model", fmt::format("{}, {}", info.model_type, info.model_digest));
  text += inspect_line("calibration", info.calibration_digest);
  text += inspect_line("compute", fmt::format("{}, blocks of {} tokens", info.compute, info.block_tokens));
  text += inspect_line("numerics", info.numerics_id);
  text += inspect_line("samples", fmt::format("{}, {} tokens", info.samples, info.tokens));
  text += inspect_line("experts",
                       fmt::format("{} in each of {} layers, top-{}", snapshot.saliency.experts, layers, info.top_k));
  text += inspect_line("done", fmt::format("{:.1f} % of the pass", 100 * passed / all));
  text += inspect_line("blocks", fmt::format("{} done, {} inside the model, {} not begun",
                                             std::ranges::count(snapshot.next_layer, layers), state.held.size(),
                                             std::ranges::count(snapshot.next_layer, 0)));
  return text + inspect_line("hidden states", fmt::format("{} in {} files, width {}", readable_bytes(bytes),
                                                          files.size(), state.hidden));
}

}  // namespace

std::string inspect_state(const std::filesystem::path& folder) {
  std::string text = fmt::format("{}: state of a calibration pass\n", folder.string());
  const std::vector<std::int64_t> generations = list_generations(folder);
  for (auto generation = generations.rbegin(); generation != generations.rend(); ++generation) {
    text += fmt::format("\n  {}\n", generation_name(*generation));
    try {
      const std::filesystem::path path = folder / generation_name(*generation);
      const State state = read_state(path);
      const HiddenFiles files(path, state);  // are there, and long enough
      text += describe(state);
    } catch (const Error& error) {
      if (error.code() != ExitCode::bad_input) throw;
      text += inspect_line("not usable", error.what());
    }
  }
  return text;
}

}  // namespace reap
