#include "driver/state_file.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>

#include "driver/atomic_file.hpp"
#include "driver/digest.hpp"
#include "driver/hdf5.hpp"
#include "driver/saliency_tables.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSchema = "reap-state-1";
constexpr std::string_view kTables = "state.h5";
constexpr std::string_view kChecksum = "state.sha256";
constexpr std::int64_t kMaxHidden = std::int64_t{1} << 24;  // far beyond any model
constexpr std::int64_t kMaxFile = 1'000'000;                // as many ranks
constexpr std::int64_t kDigestBytes = 16;

[[noreturn]] void refuse(const std::string& file, const std::string& what) {
  fail(ExitCode::bad_input, "{}: damaged: {}", file, what);
}

/// As `sha256sum -c` reads it.
std::string checksum_text(const fs::path& tables) {
  const InputFile file(tables);
  Sha256 sha256;
  std::vector<std::byte> piece(std::size_t{1} << 20);
  for (std::uint64_t at = 0; at < file.size(); at += piece.size()) {
    piece.resize(std::min<std::uint64_t>(piece.size(), file.size() - at));
    file.read(at, piece);
    sha256.update(piece);
  }
  return fmt::format("{}  {}\n", sha256.hex(), kTables);
}

void check_checksum(const fs::path& generation) {
  const InputFile checksum(generation / kChecksum);
  const std::string expected = checksum_text(generation / kTables);
  if (checksum.read_text(4096) == expected) return;
  refuse((generation / kTables).string(), fmt::format("its sha-256 is not the one in {}", kChecksum));
}

// Digests are stored as bytes: HDF5 texts of many rows would need a type of their own.

void append_digest(std::vector<std::uint8_t>& bytes, const std::string& hex) {
  REAP_CHECK(hex.size() == 2 * kDigestBytes, "a digest of {} digits", hex.size());
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    std::uint8_t byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    bytes.push_back(byte);
  }
}

std::string digest_at(std::span<const std::uint8_t> bytes, std::size_t record) {
  std::string hex;
  for (const std::uint8_t byte : bytes.subspan(record * kDigestBytes, kDigestBytes)) hex += fmt::format("{:02x}", byte);
  return hex;
}

/// One member of all records, for a dataset.
std::vector<std::int64_t> column(const std::vector<HeldRecord>& held, std::int64_t HeldRecord::*member) {
  std::vector<std::int64_t> values;
  for (const HeldRecord& record : held) values.push_back(record.*member);
  return values;
}

struct Column {
  const char* path;
  std::int64_t HeldRecord::*member;
};
constexpr std::array<Column, 4> kColumns{{{"/held/block", &HeldRecord::block},
                                          {"/held/file", &HeldRecord::file},
                                          {"/held/offset", &HeldRecord::offset},
                                          {"/held/rows", &HeldRecord::rows}}};

std::vector<HeldRecord> read_held(const Hdf5Reader& file) {
  const std::int64_t records = file.extents<std::int64_t>(kColumns[0].path, 1)[0];
  std::vector<HeldRecord> held(static_cast<std::size_t>(records));
  for (const auto& [path, member] : kColumns) {
    const auto values = file.read<std::int64_t>(path, {records});
    for (std::size_t i = 0; i < held.size(); ++i) held[i].*member = values[i];
  }
  const auto digests = file.read<std::uint8_t>("/held/digest", {records, kDigestBytes});
  for (std::size_t i = 0; i < held.size(); ++i) held[i].digest = digest_at(digests, i);
  return held;
}

/// Blocks of at least one token, which add up to all samples, each at a place between the beginning and the end.
void check_blocks(const std::string& file, const State& state) {
  std::int64_t left = state.info.tokens;
  for (std::size_t b = 0; b < state.rows.size(); ++b) {
    if (state.rows[b] < 1 || state.rows[b] > left) refuse(file, fmt::format("block {} has {} rows", b, state.rows[b]));
    left -= state.rows[b];
    const std::int64_t next = state.snapshot.next_layer[b];
    if (next < 0 || next > state.snapshot.saliency.layers)
      refuse(file, fmt::format("block {} is at layer {}", b, next));
  }
  if (left != 0) refuse(file, fmt::format("its blocks lack {} of {} tokens", left, state.info.tokens));
}

/// Every block inside the model is held exactly once, the others are not.
void check_held(const std::string& file, const State& state) {
  auto record = state.held.begin();
  for (std::size_t b = 0; b < state.rows.size(); ++b) {
    const std::int64_t next = state.snapshot.next_layer[b];
    if (next == 0 || next == state.snapshot.saliency.layers) continue;
    if (record == state.held.end() || record->block != static_cast<std::int64_t>(b)) {
      refuse(file, fmt::format("block {} is inside the model, but its hidden states are not listed", b));
    }
    if (record->rows != state.rows[b] || record->file < 0 || record->file >= kMaxFile || record->offset < 0) {
      refuse(file, fmt::format("impossible place of the hidden states of block {}", b));
    }
    ++record;
  }
  if (record != state.held.end())
    refuse(file, fmt::format("hidden states of block {}, which needs none", record->block));
}

/// What has been summed is what the blocks have been through.
void check_sums(const std::string& file, const State& state) {
  const auto layers = static_cast<std::size_t>(state.snapshot.saliency.layers);
  std::vector<std::int64_t> tokens(layers);
  for (std::size_t b = 0; b < state.rows.size(); ++b) {
    for (std::size_t layer = 0; std::cmp_less(layer, state.snapshot.next_layer[b]); ++layer) {
      tokens[layer] += state.rows[b];
    }
  }
  check_counts(file, state.snapshot.saliency, state.info.top_k, tokens);
}

}  // namespace

std::int64_t State::bytes(const HeldRecord& record) const {
  return record.rows * hidden * static_cast<std::int64_t>(sizeof(float));
}

std::string generation_name(std::int64_t generation) { return fmt::format("generation-{:06}", generation); }

std::vector<std::int64_t> list_generations(const fs::path& folder, std::string_view suffix) {
  std::vector<std::int64_t> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::int64_t number = 0;
    const std::size_t digits = std::min(name.find_first_of("0123456789"), name.size());
    if (name.size() > digits + suffix.size() + 15) continue;  // far below what int64 holds
    std::from_chars(name.data() + digits, name.data() + name.size(), number);
    if (number > 0 && name == generation_name(number).append(suffix)) found.push_back(number);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail(ExitCode::io, "{}: cannot be listed: {}", folder.string(), error.message());
  }
  std::ranges::sort(found);
  return found;
}

std::string hidden_file_name(std::int64_t file) { return fmt::format("hidden-{:04}.f32", file); }

void check_state(const std::string& what, const State& state) {
  check_blocks(what, state);
  check_held(what, state);
  check_sums(what, state);
}

void write_state(const fs::path& generation, const State& state) {
  Hdf5Writer file;
  write_info(file, kSchema, state.info);
  file.attribute("hidden", state.hidden);
  write_tables(file, state.snapshot.saliency);
  const auto blocks = static_cast<std::int64_t>(state.rows.size());
  file.dataset<std::int64_t>("/rows", {blocks}, state.rows);
  file.dataset<std::int64_t>("/next_layer", {blocks}, state.snapshot.next_layer);
  file.group("/held");
  const auto records = static_cast<std::int64_t>(state.held.size());
  for (const auto& [path, member] : kColumns) file.dataset<std::int64_t>(path, {records}, column(state.held, member));
  std::vector<std::uint8_t> digests;
  for (const HeldRecord& record : state.held) append_digest(digests, record.digest);
  file.dataset<std::uint8_t>("/held/digest", {records, kDigestBytes}, digests);
  file.save(generation / kTables);
  write_file_atomically(generation / kChecksum, checksum_text(generation / kTables));
}

State read_state(const fs::path& generation) {
  check_checksum(generation);
  const Hdf5Reader file(generation / kTables);
  State state;
  state.info = read_info(file, kSchema, "state");
  state.hidden = file.integer("hidden");
  if (state.hidden < 1 || state.hidden > kMaxHidden) refuse(file.file(), fmt::format("hidden is {}", state.hidden));
  state.snapshot.saliency = read_tables(file, state.info, kAllCollected);
  const std::int64_t blocks = file.extents<std::int64_t>("/rows", 1)[0];
  state.rows = file.read<std::int64_t>("/rows", {blocks});
  state.snapshot.next_layer = file.read<std::int64_t>("/next_layer", {blocks});
  state.held = read_held(file);
  check_state(file.file(), state);
  return state;
}

HiddenFiles::HiddenFiles(const fs::path& generation, const State& state) {
  for (const HeldRecord& record : state.held) numbers_.push_back(record.file);
  std::ranges::sort(numbers_);
  numbers_.erase(std::unique(numbers_.begin(), numbers_.end()), numbers_.end());
  for (const std::int64_t number : numbers_) files_.emplace_back(generation / hidden_file_name(number));
  for (const HeldRecord& record : state.held) {
    const InputFile& input = file(record.file);
    std::int64_t end = 0;
    if (__builtin_mul_overflow(record.rows, state.hidden * static_cast<std::int64_t>(sizeof(float)), &end) ||
        __builtin_add_overflow(end, record.offset, &end) || std::cmp_greater(end, input.size())) {
      refuse(input.path(), fmt::format("it has {} bytes, too few for block {}", input.size(), record.block));
    }
  }
}

void HiddenFiles::read(const State& state, const HeldRecord& record, float* x) const {
  const InputFile& input = file(record.file);
  const std::span into(reinterpret_cast<std::byte*>(x), static_cast<std::size_t>(state.bytes(record)));
  input.read(static_cast<std::uint64_t>(record.offset), into);
  Xxh3 xxh3;
  xxh3.update(into);
  if (xxh3.hex() == record.digest) return;
  refuse(input.path(), fmt::format("the hidden states of block {} have another digest than listed", record.block));
}

const InputFile& HiddenFiles::file(std::int64_t number) const {
  const auto found = std::ranges::lower_bound(numbers_, number);
  return files_[static_cast<std::size_t>(found - numbers_.begin())];
}

}  // namespace reap
