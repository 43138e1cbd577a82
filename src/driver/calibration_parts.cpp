#include "driver/calibration_parts.hpp"

#include <algorithm>
#include <set>
#include <span>
#include <string_view>
#include <tuple>

#include "driver/digest.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

constexpr std::string_view kDigestDomain = "reap-saliency-parts-1";

}  // namespace

std::vector<Block> blocks_of_part(const std::vector<Block>& blocks, const PartChoice& choice) {
  const auto total = static_cast<std::int64_t>(blocks.size());
  REAP_CHECK(1 <= choice.index && choice.index <= choice.count, "part {} of {}", choice.index, choice.count);
  if (choice.count > total) {
    fail(ExitCode::usage, "--part {}/{}: the calibration file has only {} blocks of --block-tokens", choice.index,
         choice.count, total);
  }
  const auto tokens = static_cast<double>(blocks.back().end);
  std::int64_t begin = 0, end = 0;
  for (std::int64_t part = 1; part <= choice.index; ++part) {
    begin = end;
    // The border nearest to this part's share of the tokens, with a block left for this part and all after it.
    const double share = tokens * static_cast<double>(part) / static_cast<double>(choice.count);
    const auto middle = [](const Block& b) { return (static_cast<double>(b.begin) + static_cast<double>(b.end)) / 2; };
    const auto border =
        std::ranges::partition_point(blocks, [&](const Block& b) { return middle(b) < share; }) - blocks.begin();
    end = std::clamp<std::int64_t>(border, begin + 1, total - (choice.count - part));
  }
  std::vector<Block> own(blocks.begin() + begin, blocks.begin() + end);
  for (Block& block : own) block.index -= begin;
  return own;
}

CalibrationPart part_of(const Calibration& calibration, const std::vector<Block>& blocks) {
  const Block &first = blocks.front(), &last = blocks.back();
  return {calibration.digest,      first.first, last.last, calibration.samples.samples(), last.end - first.begin,
          calibration.domain_names};
}

bool operator<(const CalibrationPart& a, const CalibrationPart& b) {
  return std::tie(a.digest, a.first, a.last) < std::tie(b.digest, b.first, b.last);
}

std::string describe(const CalibrationPart& part) {
  if (part.whole()) return fmt::format("all {} samples of calibration {}", part.file_samples, part.digest);
  return fmt::format("samples {} to {} of the {} of calibration {}", part.first, part.last - 1, part.file_samples,
                     part.digest);
}

std::string digest_of(const std::vector<CalibrationPart>& parts) {
  if (parts.size() == 1 && parts[0].whole()) return parts[0].digest;
  Xxh3 hash;
  hash.update(std::as_bytes(std::span(kDigestDomain)));
  for (const CalibrationPart& part : parts) {
    hash.update(std::as_bytes(std::span(part.digest)));
    for (const std::int64_t number : {part.first, part.last, part.file_samples}) {
      hash.update(std::as_bytes(std::span(&number, 1)));
    }
  }
  return hash.hex();
}

std::vector<std::string> domains_of(const std::vector<CalibrationPart>& parts) {
  const std::vector<std::string>& first = parts.at(0).domains;
  if (std::ranges::all_of(parts, [&](const CalibrationPart& part) { return part.domains == first; })) return first;
  std::set<std::string> names;
  for (const CalibrationPart& part : parts) names.insert(part.domains.begin(), part.domains.end());
  return {names.begin(), names.end()};
}

}  // namespace reap
