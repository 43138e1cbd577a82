#include "driver/state.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "driver/atomic_file.hpp"
#include "driver/concurrently.hpp"
#include "driver/digest.hpp"
#include "driver/file_writer.hpp"
#include "kernels/buffer.hpp"
#include "kernels/check.hpp"
#include "shard/json.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartial = ".partial";

/// A generation that has been read, and its files, still open.
struct OpenGeneration {
  explicit OpenGeneration(const fs::path& path) : state(read_state(path)), files(path, state) {}
  State state;
  HiddenFiles files;
};

fs::path partial_name(const fs::path& folder, std::int64_t generation) {
  return folder / (generation_name(generation).append(kPartial));
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  if (!fs::create_directories(folder, error) && !error) return;
  if (error) fail(ExitCode::io, "{}: cannot be made: {}", folder.string(), error.message());
  sync_directory(folder.has_parent_path() ? folder.parent_path() : ".");
}

void rename_generation(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail(ExitCode::io, "{}: cannot be renamed to {}: {}", from.string(), to.string(), error.message());
}

/// Removes what interrupted commits and removals have left.
void remove_partial(const fs::path& folder) {
  for (const std::int64_t left : list_generations(folder, kPartial)) fs::remove_all(partial_name(folder, left));
}

/// By way of the name of an unfinished one: under its final name a generation is whole or absent.
void remove_generation(const fs::path& folder, std::int64_t generation) {
  const fs::path doomed = partial_name(folder, generation);
  rename_generation(folder / generation_name(generation), doomed);
  fs::remove_all(doomed);
}

/// Writes a rank's hidden states, durably. @return where they lie
std::vector<HeldRecord> write_hidden(const Comm& world, const fs::path& file, const std::vector<HeldBlock>& own,
                                     std::int64_t hidden) {
  std::vector<HeldRecord> records;
  if (own.empty()) return records;
  std::int64_t rows = 0, most = 0;
  for (const HeldBlock& block : own) {
    rows += block.rows;
    most = std::max(most, block.rows);
  }
  const auto bytes_of = [&](std::int64_t r) { return static_cast<std::uint64_t>(r * hidden) * sizeof(float); };
  FileWriter writer(file, bytes_of(rows));
  const Buffer<float> x(host_memory, most * hidden);
  std::int64_t offset = 0;
  for (const HeldBlock& block : own) {
    block.read(x.data());
    const auto bytes = std::as_bytes(std::span(x.data(), static_cast<std::size_t>(block.rows * hidden)));
    Xxh3 xxh3;
    xxh3.update(bytes);
    writer.append(bytes);
    records.push_back({block.block, world.rank(), offset, block.rows, xxh3.hex()});
    offset += static_cast<std::int64_t>(bytes.size());
    operations::moved();
    world.idle();
  }
  for_each_concurrently(
      1, 1, [&](std::size_t) { writer.finish(); }, [&] { world.idle(); });  // may take minutes
  return records;
}

/// Every rank's records, by ascending block.
std::vector<HeldRecord> all_gather_held(const Comm& world, const std::vector<HeldRecord>& own) {
  Json mine = Json::array();
  for (const HeldRecord& r : own) mine.push_back({r.block, r.file, r.offset, r.rows, r.digest});
  std::vector<HeldRecord> held;
  for (const std::string& text : world.all_gather(mine.dump())) {
    for (const Json& r : parse_json(text, "hidden states of another rank")) {
      held.push_back({r[0], r[1], r[2], r[3], r[4]});
    }
  }
  std::ranges::sort(held, {}, &HeldRecord::block);
  return held;
}

/// What could not be loaded again is our own mistake.
void check_own(const State& state) {
  try {
    check_state("the state to be saved", state);
  } catch (const Error& error) {
    fail(ExitCode::bug, "{}", error.what());
  }
}

/// Rank 0's list, on every rank: others may see a shared folder late.
std::vector<std::int64_t> all_list(const Comm& world, const fs::path& folder) {
  std::vector<std::int64_t> generations;
  world.all_try([&] {
    if (world.rank() != 0) return;
    make_folder(folder);
    generations = list_generations(folder);
  });
  std::int64_t size = static_cast<std::int64_t>(generations.size());
  world.all_broadcast(0, std::as_writable_bytes(std::span(&size, 1)));
  generations.resize(static_cast<std::size_t>(size));
  world.all_broadcast(0, std::as_writable_bytes(std::span(generations)));
  return generations;
}

}  // namespace

StateFolder::StateFolder(fs::path folder, SaliencyInfo info, std::vector<Block> blocks, std::int64_t hidden,
                         std::int64_t layers)
    : folder_{std::move(folder)}, info_{std::move(info)}, blocks_{std::move(blocks)}, hidden_{hidden}, layers_{layers} {
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // "state/"
}

/// Always so for a state of the same identity, unless it is damaged.
bool StateFolder::fits(const State& state) const {
  return state.hidden == hidden_ && state.snapshot.saliency.layers == layers_ && state.info.top_k == info_.top_k &&
         state.info.domains == info_.domains &&
         std::ranges::equal(state.rows, blocks_, {}, {}, [](const Block& block) { return block.rows(); });
}

std::optional<StartingPoint> StateFolder::all_load(const Comm& world, std::string& log_text) {
  operations::note("load the state");
  std::vector<std::int64_t> generations = all_list(world, folder_);
  for (; !generations.empty(); generations.pop_back()) {
    const fs::path path = folder_ / generation_name(generations.back());
    std::shared_ptr<OpenGeneration> opened;
    std::string other;
    try {
      world.all_try([&] {
        opened = std::make_shared<OpenGeneration>(path);
        const State& state = opened->state;
        other = difference(state.info, info_);
        if (!other.empty()) return;
        if (!fits(state)) fail(ExitCode::bad_input, "{}: does not fit its own model and samples", path.string());
        for (auto i = static_cast<std::size_t>(world.rank()); i < state.held.size();
             i += static_cast<std::size_t>(world.size())) {
          const Buffer<float> x(host_memory, state.held[i].rows * hidden_);
          opened->files.read(state, state.held[i], x.data());
          world.idle();
        }
      });
    } catch (const SharedError& error) {
      if (error.code() != ExitCode::bad_input) throw;
      log_text += fmt::format("{}state: generation {} is not used: {}", log_text.empty() ? "" : "\n",
                              generations.back(), error.what());
      continue;
    }
    if (!other.empty()) {
      throw SharedError(ExitCode::bad_input,
                        fmt::format("{}: holds the state of another pass, with {}; give another folder as --state, or "
                                    "remove this one",
                                    folder_.string(), other));
    }
    generation_ = generations.back();
    Snapshot snapshot = std::move(opened->state.snapshot);
    if (world.rank() != 0) {
      snapshot.saliency.gram = snapshot.saliency.outputs = {};
      snapshot.saliency.imatrix = {};
      snapshot.saliency.moments = {};
    }
    return StartingPoint{std::move(snapshot), [opened](std::int64_t block, float* x) {
                           const auto& held = opened->state.held;
                           const auto record = std::ranges::lower_bound(held, block, {}, &HeldRecord::block);
                           REAP_CHECK(record != held.end() && record->block == block, "block {} is not held", block);
                           opened->files.read(opened->state, *record, x);
                         }};
  }
  return std::nullopt;
}

void StateFolder::all_commit(const Comm& world, const Snapshot& snapshot, const std::vector<HeldBlock>& own) {
  operations::note("save the state");
  const bool first = world.rank() == 0;
  const std::vector<std::int64_t> before = all_list(world, folder_);
  const std::int64_t generation = before.empty() ? 1 : before.back() + 1;
  const fs::path partial = partial_name(folder_, generation);
  try {
    world.all_try([&] {
      if (!first) return;
      remove_partial(folder_);
      fs::create_directory(partial);
    });
    std::vector<HeldRecord> held;
    world.all_try([&] { held = write_hidden(world, partial / hidden_file_name(world.rank()), own, hidden_); });
    held = all_gather_held(world, held);
    world.all_try([&] {
      if (!first) return;
      State state{info_, hidden_, {}, snapshot, std::move(held)};
      for (const Block& block : blocks_) state.rows.push_back(block.rows());
      check_own(state);
      write_state(partial, state);
      sync_directory(partial);
      rename_generation(partial, folder_ / generation_name(generation));
      sync_directory(folder_);
    });
  } catch (...) {
    std::error_code ignored;  // another error is on its way
    if (first) fs::remove_all(partial, ignored);
    throw;
  }
  const std::int64_t last = std::exchange(generation_, generation);
  world.all_try([&] {
    if (!first) return;
    for (const std::int64_t old : before) {
      if (old != last) remove_generation(folder_, old);
    }
  });
}

void StateFolder::all_remove(const Comm& world) {
  world.all_try([&] {
    if (world.rank() != 0 || !fs::exists(folder_)) return;
    remove_partial(folder_);
    for (const std::int64_t generation : list_generations(folder_)) remove_generation(folder_, generation);
  });
}

}  // namespace reap
