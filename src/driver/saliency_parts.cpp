#include "driver/saliency_parts.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::int64_t kDigestLength = 32;  // XXH3-128 in hex
constexpr std::int64_t kNumbers = 3;        // first, last, samples of the file
constexpr std::int32_t kNoDomain = -1;

[[noreturn]] void refuse(const Hdf5Reader& file, const std::string& why) {
  fail(ExitCode::bad_input, "{}: /parts: {}: the file is damaged", file.file(), why);
}

/// Domains of each part as positions in `names`, [parts, names], filled up with kNoDomain.
std::vector<std::int32_t> domain_table(const std::vector<CalibrationPart>& parts,
                                       const std::vector<std::string>& names) {
  std::vector<std::int32_t> table;
  for (const CalibrationPart& part : parts) {
    for (const std::string& name : part.domains) {
      table.push_back(static_cast<std::int32_t>(std::ranges::find(names, name) - names.begin()));
    }
    table.resize(table.size() + names.size() - part.domains.size(), kNoDomain);
  }
  return table;
}

std::vector<std::string> domain_list(const Hdf5Reader& file, std::span<const std::int32_t> row,
                                     const std::vector<std::string>& names) {
  std::vector<std::string> list;
  for (const std::int32_t at : row) {
    if (at == kNoDomain) break;
    if (at < 0 || at >= static_cast<std::int32_t>(names.size())) refuse(file, fmt::format("domain {} is unknown", at));
    list.push_back(names[static_cast<std::size_t>(at)]);
  }
  if (list.empty() || std::set(list.begin(), list.end()).size() != list.size()) refuse(file, "a part's domains");
  return list;
}

std::vector<CalibrationPart> read_list(const Hdf5Reader& file, const std::vector<std::string>& names) {
  const std::int64_t count = file.extents<std::int64_t>("/parts/samples", 2)[0];
  if (count < 1) refuse(file, "it lists none");
  const auto width = static_cast<std::int64_t>(names.size());
  const auto numbers = file.read<std::int64_t>("/parts/samples", {count, kNumbers});
  const auto tokens = file.read<std::int64_t>("/parts/tokens", {count});
  const auto digests = file.read<std::uint8_t>("/parts/calibration", {count, kDigestLength});
  const auto domains = file.read<std::int32_t>("/parts/domains", {count, width});
  std::vector<CalibrationPart> parts;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto digest = std::span(digests).subspan(i * kDigestLength, kDigestLength);
    CalibrationPart part{std::string(digest.begin(), digest.end()), numbers[i * kNumbers], numbers[i * kNumbers + 1],
                         numbers[i * kNumbers + 2], tokens[i]};
    if (part.first < 0 || part.last <= part.first || part.last > part.file_samples ||
        part.tokens < part.last - part.first) {
      refuse(file, fmt::format("part {} has samples {} to {} of {}, {} tokens", i, part.first, part.last - 1,
                               part.file_samples, part.tokens));
    }
    part.domains = domain_list(file, std::span(domains).subspan(i * names.size(), names.size()), names);
    parts.push_back(std::move(part));
  }
  return parts;
}

/// No sample is in two parts, and no sum of theirs is beyond 64 bits.
void check_list(const Hdf5Reader& file, const std::vector<CalibrationPart>& parts) {
  std::int64_t samples = 0, tokens = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const CalibrationPart& part = parts[i];
    if (i > 0 && !(parts[i - 1] < part)) refuse(file, "not in order");
    if (i > 0 && parts[i - 1].digest == part.digest && part.first < parts[i - 1].last) refuse(file, "parts overlap");
    if (__builtin_add_overflow(samples, part.last - part.first, &samples) ||
        __builtin_add_overflow(tokens, part.tokens, &tokens)) {
      refuse(file, "too many tokens");
    }
  }
}

}  // namespace

std::vector<CalibrationPart> parts_of(const SaliencyInfo& info) {
  if (!info.parts.empty()) return info.parts;
  return {{info.calibration_digest, 0, info.samples, info.samples, info.tokens, info.domains}};
}

void set_parts(SaliencyInfo& info, std::vector<CalibrationPart> parts) {
  std::ranges::sort(parts, [](const auto& a, const auto& b) { return a < b; });
  info.calibration_digest = digest_of(parts);
  info.domains = domains_of(parts);
  info.samples = info.tokens = 0;
  for (const CalibrationPart& part : parts) {
    info.samples += part.last - part.first;
    info.tokens += part.tokens;
  }
  info.parts = parts.size() == 1 && parts[0].whole() ? std::vector<CalibrationPart>() : std::move(parts);
}

void write_parts(Hdf5Writer& file, const SaliencyFile& saliency) {
  const std::vector<CalibrationPart>& parts = saliency.info.parts;
  if (parts.empty()) return;
  std::vector<std::uint8_t> digests;
  std::vector<std::int64_t> numbers, tokens;
  for (const CalibrationPart& part : parts) {
    REAP_CHECK(part.digest.size() == kDigestLength, "the digest '{}' is not of {} digits", part.digest, kDigestLength);
    digests.insert(digests.end(), part.digest.begin(), part.digest.end());
    numbers.insert(numbers.end(), {part.first, part.last, part.file_samples});
    tokens.push_back(part.tokens);
  }
  const auto count = static_cast<std::int64_t>(parts.size());
  const auto width = static_cast<std::int64_t>(saliency.info.domains.size());
  file.group("/parts");
  file.dataset<std::uint8_t>("/parts/calibration", {count, kDigestLength}, digests);
  file.dataset<std::int64_t>("/parts/samples", {count, kNumbers}, numbers);
  file.dataset<std::int64_t>("/parts/tokens", {count}, tokens);
  file.dataset<std::int32_t>("/parts/domains", {count, width}, domain_table(parts, saliency.info.domains));
  if (count == 1) return;  // its largest magnitudes are those of the file
  const Saliency& table = saliency.saliency;
  std::vector<float> max_abs;
  for (const auto& part : saliency.part_max_abs) max_abs.insert(max_abs.end(), part.begin(), part.end());
  file.dataset<float>("/parts/max_abs", {count, table.groups, table.layers, table.experts}, max_abs);
}

void read_parts(const Hdf5Reader& file, SaliencyFile& saliency) {
  if (!file.has("/parts")) return;
  SaliencyInfo& info = saliency.info;
  std::vector<CalibrationPart> parts = read_list(file, info.domains);
  check_list(file, parts);
  SaliencyInfo expected = info;
  set_parts(expected, parts);
  if (expected.parts.empty()) refuse(file, "they are one whole calibration file");
  if (expected.calibration_digest != info.calibration_digest || expected.domains != info.domains ||
      expected.samples != info.samples || expected.tokens != info.tokens) {
    refuse(file, "calibration_digest, domains, samples or tokens do not follow from it");
  }
  info.parts = std::move(parts);
  if (info.parts.size() == 1) return;

  const Saliency& table = saliency.saliency;
  const auto count = static_cast<std::int64_t>(info.parts.size());
  const auto all = file.read<float>("/parts/max_abs", {count, table.groups, table.layers, table.experts});
  std::vector<float> largest(table.max_abs.size(), 0);
  for (std::size_t i = 0; i < info.parts.size(); ++i) {
    const auto part = std::span(all).subspan(i * largest.size(), largest.size());
    for (std::size_t cell = 0; cell < largest.size(); ++cell) {
      if (!(part[cell] >= 0)) refuse(file, "a largest magnitude is not a number or negative");
      largest[cell] = std::max(largest[cell], part[cell]);
    }
    saliency.part_max_abs.emplace_back(part.begin(), part.end());
  }
  if (largest != table.max_abs) refuse(file, "/max_abs is not the largest of the parts'");
}

}  // namespace reap
