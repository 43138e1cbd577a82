#include <fmt/format.h>

#include "driver/estimate.hpp"
#include "driver/inspect_parts.hpp"
#include "driver/progress.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

/// A part of a footprint or of a time, as tables and JSON name it.
template <class T, class Value>
struct Column {
  const char* name;
  Value T::*value;
};

constexpr Column<Footprint, std::int64_t> kBytes[] = {
    {"program", &Footprint::program}, {"weights", &Footprint::weights}, {"reading", &Footprint::reading},
    {"forward", &Footprint::forward}, {"links", &Footprint::links},     {"hidden", &Footprint::hidden},
    {"sums", &Footprint::sums}};

constexpr Column<PassTime, double> kSeconds[] = {{"load", &PassTime::load},
                                                 {"compute", &PassTime::compute},
                                                 {"exchange", &PassTime::exchange},
                                                 {"reading", &PassTime::reading},
                                                 {"filling", &PassTime::filling}};

std::string billions(std::int64_t parameters) {
  return parameters < 1'000'000'000 ? fmt::format("{:.1f} M", static_cast<double>(parameters) / 1e6)
                                    : fmt::format("{:.1f} G", static_cast<double>(parameters) / 1e9);
}

const char* mode_of(const Candidate& candidate) { return candidate.holding.streamed ? "stream" : "resident"; }

std::string head_of(const Estimate& e) {
  const Model& model = e.folder.model;
  const Stock whole = e.folder.inventory.whole();
  std::string text = fmt::format("{}: estimate\n", e.directory.string());
  text += inspect_line("model", fmt::format("{} layers, {} experts, top-{}: {} parameters, {} in {} tensors",
                                            model.layers, model.router.experts, model.router.top_k,
                                            billions(whole.parameters), readable_bytes(whole.bytes), whole.tensors));
  if (!e.folder.note.empty()) text += inspect_line("", e.folder.note);
  text += inspect_line("calibration", e.samples);
  text += inspect_line("", fmt::format("{} tokens in {} blocks, the longest of {}", e.work.tokens(),
                                       e.work.blocks.size(), e.work.max_rows()));
  text += inspect_line("ranks", fmt::format("{} of {} each", e.ranks,
                                            e.memory_bytes == 0 ? "unknown memory" : readable_bytes(e.memory_bytes)));
  return text + inspect_line("compute", e.work.compute == Compute::bf16 ? "bf16" : "fp32");
}

std::string machine_table(const Machine& machine) {
  std::string text = fmt::format("\nMachine: {}\n", machine.kind);
  for (const MachineValue& value : machine_values()) {
    if (machine.*value.value == 0) continue;  // memory of this machine, a latency of nothing
    text += fmt::format("  {:<20}{:>12.5g} {:<8} {:<32}{}\n", value.key, machine.*value.value / value.scale, value.unit,
                        value.what, machine.source.find(value.key)->second);
  }
  return text;
}

std::string grid_cells(const Candidate& candidate, bool chosen) {
  const char* mark = chosen ? "*" : candidate.fits ? " " : "-";
  return fmt::format("{} {:>4}{:>4}{:>5}  {:<9}", mark, candidate.grid.pp, candidate.grid.ep, candidate.grid.dp,
                     mode_of(candidate));
}

std::string grid_tables(const Estimate& e) {
  std::string bytes = fmt::format("\nBytes per rank (*: chosen, -: does not fit)\n  {:>4}{:>4}{:>5}  {:<9}{:>6}", "pp",
                                  "ep", "dp", "weights", "waves");
  std::string times =
      fmt::format("\nTime of the calibration pass\n  {:>4}{:>4}{:>5}  {:<9}", "pp", "ep", "dp", "weights");
  for (const auto& column : kBytes) bytes += fmt::format("{:>9}", column.name);
  for (const auto& column : kSeconds) times += fmt::format("{:>13}", column.name);
  bytes += fmt::format("{:>9}\n", "total");
  times += fmt::format("{:>13}\n", "total");
  for (std::size_t i = 0; i < e.candidates.size(); ++i) {
    const Candidate& candidate = e.candidates[i];
    const std::string cells = grid_cells(candidate, static_cast<int>(i) == e.chosen);
    bytes += fmt::format("{}{:>6}", cells, candidate.waves);
    times += cells;
    for (const auto& column : kBytes) bytes += fmt::format("{:>9}", readable_bytes(candidate.need.*column.value));
    for (const auto& column : kSeconds) times += fmt::format("{:>13}", readable_seconds(candidate.time.*column.value));
    bytes += fmt::format("{:>9}\n", readable_bytes(candidate.need.total()));
    times += fmt::format("{:>13}\n", readable_seconds(candidate.time.total()));
  }
  return bytes + times;
}

std::string choice_text(const Estimate& e) {
  if (e.chosen < 0) return fmt::format("\nNothing fits: {}\n", e.why);
  const Candidate& chosen = e.candidates[static_cast<std::size_t>(e.chosen)];
  std::string text = fmt::format("\nChosen: {}, weights {}: {}\n", text_of(chosen.grid), mode_of(chosen), e.why);
  if (chosen.holding.streamed) {
    text += fmt::format("  {} waves of up to {} rows in each column; {} of weights at a time\n", chosen.waves,
                        chosen.holding.wave_rows, readable_bytes(chosen.holding.weight_window));
  }
  return text;
}

std::string output_table(const Estimate& e) {
  std::string text = fmt::format("\nOutputs\n  {:<10}{:>8}{:>14}{:>12}{:>9}{:>15}{:>12}\n", "dropped", "kept",
                                 "parameters", "bytes", "share", "write, verify", "W4A16");
  std::int64_t sum = 0;
  const double whole = static_cast<double>(e.folder.inventory.whole().bytes);
  for (const OutputEstimate& output : e.outputs) {
    sum += output.left.bytes;
    text += fmt::format("  {:<10}{:>8}{:>14}{:>12}{:>8.1f}%{:>15}{:>12}\n", e.folder.model.router.experts - output.kept,
                        output.kept, billions(output.left.parameters), readable_bytes(output.left.bytes),
                        100 * static_cast<double>(output.left.bytes) / whole, readable_seconds(output.seconds),
                        output.w4a16_bytes == 0 ? "-" : readable_bytes(output.w4a16_bytes));
  }
  text += fmt::format("  all of them, and saliency.h5 of {}: {}", readable_bytes(e.saliency_bytes),
                      readable_bytes(sum + e.saliency_bytes));
  if (e.free_bytes >= 0) text += fmt::format("; free there: {}", readable_bytes(e.free_bytes));
  if (e.scratch_bytes > 0) text += fmt::format("\n  scratch files of all ranks: {}", readable_bytes(e.scratch_bytes));
  return text + "\n";
}

Json stock_json(const Stock& stock) {
  return {{"tensors", stock.tensors}, {"parameters", stock.parameters}, {"bytes", stock.bytes}};
}

Json candidate_json(const Candidate& candidate) {
  Json bytes, seconds;
  for (const auto& column : kBytes) bytes[column.name] = candidate.need.*column.value;
  for (const auto& column : kSeconds) seconds[column.name] = candidate.time.*column.value;
  bytes["total"] = candidate.need.total();
  seconds["total"] = candidate.time.total();
  Json json = {{"pp", candidate.grid.pp},       {"ep", candidate.grid.ep}, {"dp", candidate.grid.dp},
               {"weights", mode_of(candidate)}, {"fits", candidate.fits},  {"waves", candidate.waves}};
  if (candidate.holding.streamed) {
    json["weight_window"] = candidate.holding.weight_window;
    json["wave_rows"] = candidate.holding.wave_rows;
  }
  json["bytes"] = std::move(bytes);
  json["seconds"] = std::move(seconds);
  return json;
}

Json machine_json(const Machine& machine) {
  Json json = {{"kind", machine.kind}};
  for (const MachineValue& value : machine_values()) {
    json[std::string(value.key)] = {{"value", machine.*value.value / value.scale},
                                    {"unit", value.unit},
                                    {"source", machine.source.find(value.key)->second}};
  }
  return json;
}

}  // namespace

std::string estimate_table(const Estimate& e) {
  return head_of(e) + machine_table(e.machine) + grid_tables(e) + choice_text(e) + output_table(e);
}

std::string estimate_json(const Estimate& e) {
  Json json = {{"format", "reap-estimate-1"}, {"model", e.directory.string()}};
  json["whole"] = stock_json(e.folder.inventory.whole());
  json["from_headers"] = e.folder.from_headers;
  json["note"] = e.folder.note;
  json["tokens"] = e.work.tokens();
  json["blocks"] = e.work.blocks.size();
  json["ranks"] = e.ranks;
  json["memory_bytes"] = e.memory_bytes;
  json["machine"] = machine_json(e.machine);
  json["grids"] = Json::array();
  for (const Candidate& candidate : e.candidates) json["grids"].push_back(candidate_json(candidate));
  json["chosen"] = e.chosen < 0 ? Json(nullptr) : Json(e.chosen);
  json["why"] = e.why;
  json["outputs"] = Json::array();
  for (const OutputEstimate& output : e.outputs) {
    Json entry = {{"kept", output.kept}};
    entry.update(stock_json(output.left));
    entry["seconds"] = output.seconds;
    entry["w4a16_bytes"] = output.w4a16_bytes;
    json["outputs"].push_back(std::move(entry));
  }
  json["saliency_bytes"] = e.saliency_bytes;
  json["scratch_bytes"] = e.scratch_bytes;
  json["free_bytes"] = e.free_bytes < 0 ? Json(nullptr) : Json(e.free_bytes);
  return json.dump(2) + "\n";
}

}  // namespace reap
