#include "driver/saliency_tables.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "driver/output_tables.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::int64_t kDigitEnd = std::int64_t{1} << 32;
constexpr std::int64_t kHighDigitEnd = std::int64_t{1} << 31;  // 127 bits in all

std::string digits_path(const FieldInfo& field) { return fmt::format("/fields/{}/digits", field.name); }

// A table in memory keeps all sums of an expert together; a file keeps each field together.

std::vector<std::int64_t> counts_of(const Saliency& saliency) {
  std::vector<std::int64_t> counts;
  for (std::size_t i = 0; i < saliency.sums.size(); i += kSumsPerExpert) counts.push_back(saliency.sums[i]);
  return counts;
}

std::vector<std::int64_t> digits_of(const Saliency& saliency, Field field) {
  std::vector<std::int64_t> digits;
  for (std::size_t i = 0; i < saliency.sums.size(); i += kSumsPerExpert) {
    const std::int64_t* first = saliency.sums.data() + i + digits_offset(field);
    digits.insert(digits.end(), first, first + kDigits);
  }
  return digits;
}

std::int64_t read_positive(const Hdf5Reader& file, const std::string& attribute) {
  const std::int64_t value = file.integer(attribute);
  if (value < 1) fail(ExitCode::bad_input, "{}: attribute \"{}\" is {}", file.file(), attribute, value);
  return value;
}

/// An empty table of the file's extents, which are checked against the file's size before anything is allocated.
Saliency table_of(const Hdf5Reader& file, const SaliencyInfo& info) {
  const Extents extents = file.extents<std::int64_t>(kCountPath, 3);
  const auto groups = static_cast<std::int64_t>(info.domains.size()) * 2;
  if (extents[0] != groups || extents[1] < 1 || extents[2] < info.top_k) {
    fail(ExitCode::bad_input,
         "{}: /fields/count is [{}, {}, {}]; expected {} groups (2 per domain), a layer or more, and top_k = {} "
         "experts or "
         "more",
         file.file(), extents[0], extents[1], extents[2], groups, info.top_k);
  }
  for (const FieldInfo& field : kFields) file.extents<std::int64_t>(digits_path(field), 4);
  return Saliency(extents[0], extents[1], extents[2]);
}

bool canonical(std::span<const std::int64_t, kDigits> digits) {
  for (const std::int64_t digit : digits.first<kDigits - 1>()) {
    if (digit < 0 || digit >= kDigitEnd) return false;
  }
  return digits.back() >= 0 && digits.back() < kHighDigitEnd;
}

void read_sums(const Hdf5Reader& file, Saliency& table) {
  const auto counts = file.read<std::int64_t>(kCountPath, {table.groups, table.layers, table.experts});
  for (std::size_t i = 0; i < counts.size(); ++i) table.sums[i * kSumsPerExpert] = counts[i];
  for (const FieldInfo& field : kFields) {
    const auto digits =
        file.read<std::int64_t>(digits_path(field), {table.groups, table.layers, table.experts, kDigits});
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const std::span<const std::int64_t, kDigits> from(digits.data() + i * kDigits, kDigits);
      if (!canonical(from)) {
        fail(ExitCode::bad_input, "{}: {}: entry {} is not in canonical form (docs/numerics.md)", file.file(),
             digits_path(field), i);
      }
      std::ranges::copy(from, table.sums.data() + i * kSumsPerExpert + digits_offset(field.field));
    }
  }
  table.max_abs = file.read<float>("/max_abs", {table.groups, table.layers, table.experts});
}

/// What is impossible in any cell. A layer has seen `tokens`.
void check_cell(const std::string& file, const Saliency& table, std::int64_t cell, std::int64_t tokens) {
  const auto at = static_cast<std::size_t>(cell);
  const auto sums = std::span(table.sums).subspan(at * kSumsPerExpert, kSumsPerExpert);
  const float max_abs = table.max_abs[at];
  const bool bare = std::ranges::all_of(sums, [](std::int64_t sum) { return sum == 0; }) && max_abs == 0;
  if (sums[0] >= 0 && sums[0] <= tokens && max_abs >= 0 && !std::isinf(max_abs) && (sums[0] != 0 || bare)) return;
  const std::int64_t expert = cell % table.experts;
  const std::int64_t layer = cell / table.experts % table.layers;
  fail(ExitCode::bad_input, "{}: group {}, layer {}, expert {}: its count is {} of {} tokens, max_abs {}: impossible",
       file, cell / table.experts / table.layers, layer, expert, sums[0], tokens, max_abs);
}

}  // namespace

void write_info(Hdf5Writer& file, std::string_view schema, const SaliencyInfo& info) {
  file.attribute("schema", std::string(schema));
  file.attribute("model_type", info.model_type);
  file.attribute("model_digest", info.model_digest);
  file.attribute("calibration_digest", info.calibration_digest);
  file.attribute("compute", info.compute);
  file.attribute("numerics_id", info.numerics_id);
  file.attribute("block_tokens", info.block_tokens);
  file.attribute("samples", info.samples);
  file.attribute("tokens", info.tokens);
  file.attribute("top_k", info.top_k);
  file.attribute("domains", info.domains);
  if (!info.plan_digest.empty()) file.attribute("plan_digest", info.plan_digest);
}

void write_tables(Hdf5Writer& file, const Saliency& saliency) {
  const Extents extents{saliency.groups, saliency.layers, saliency.experts};
  file.group("/fields");
  file.dataset<std::int64_t>(kCountPath, extents, counts_of(saliency));
  for (const FieldInfo& field : kFields) {
    file.group(fmt::format("/fields/{}", field.name));
    file.dataset<std::int64_t>(digits_path(field), {extents[0], extents[1], extents[2], kDigits},
                               digits_of(saliency, field.field));
  }
  file.dataset<float>("/max_abs", extents, saliency.max_abs);
  write_output_tables(file, saliency);
}

SaliencyInfo read_info(const Hdf5Reader& file, std::string_view schema, std::string_view kind) {
  if (!file.has_attribute("schema")) {
    fail(ExitCode::bad_input, "{}: not a {} file: it has no attribute \"schema\"", file.file(), kind);
  }
  if (const std::string found = file.text("schema"); found != schema) {
    fail(ExitCode::bad_input, "{}: its schema is \"{}\", a {} file has \"{}\"", file.file(), found, kind, schema);
  }
  SaliencyInfo info;
  info.model_type = file.text("model_type");
  info.model_digest = file.text("model_digest");
  info.calibration_digest = file.text("calibration_digest");
  info.compute = file.text("compute");
  info.numerics_id = file.text("numerics_id");
  info.block_tokens = read_positive(file, "block_tokens");
  info.samples = read_positive(file, "samples");
  info.tokens = read_positive(file, "tokens");
  info.top_k = read_positive(file, "top_k");
  info.domains = file.texts("domains");
  if (file.has_attribute("plan_digest")) info.plan_digest = file.text("plan_digest");
  if (info.domains.empty()) fail(ExitCode::bad_input, "{}: attribute \"domains\" is empty", file.file());
  info.collected = collected_in(file);
  return info;
}

Saliency read_tables(const Hdf5Reader& file, const SaliencyInfo& info, const Collected& wanted) {
  Saliency table = table_of(file, info);
  read_sums(file, table);
  read_output_tables(file, wanted, table);
  return table;
}

void check_counts(const std::string& file, const Saliency& table, std::int64_t top_k,
                  std::span<const std::int64_t> tokens) {
  for (std::int64_t layer = 0; layer < table.layers; ++layer) {
    const std::int64_t layer_tokens = tokens[static_cast<std::size_t>(layer)];
    std::int64_t slots = 0;
    for (std::int64_t group = 0; group < table.groups; ++group) {
      for (std::int64_t expert = 0; expert < table.experts; ++expert) {
        check_cell(file, table, table.index(group, layer, expert), layer_tokens);
        // Cannot overflow: every term is at most the layer's tokens, and beyond the limit the sum is of no interest.
        const std::int64_t count = table.count(group, layer, expert);
        slots = std::min(slots, std::numeric_limits<std::int64_t>::max() - count) + count;
      }
    }
    std::int64_t expected = 0;
    if (__builtin_mul_overflow(layer_tokens, top_k, &expected) || slots != expected) {
      fail(ExitCode::bad_input, "{}: layer {}: counts add up to {}, expected {} tokens x top_k {}", file, layer, slots,
           layer_tokens, top_k);
    }
  }
}

}  // namespace reap
