#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/calibration.hpp"
#include "shard/samples.hpp"

namespace reap {

/// A share of a calibration pass that several jobs do: number `index`, from 1, of `count`.
struct PartChoice {
  std::int64_t index = 1;
  std::int64_t count = 1;
};

/// The blocks of one share: the partition of the whole file, cut into `count` runs of about equal tokens, none of them
/// empty. Samples and tokens keep their numbers in the file; `index` counts from 0 again, as a pass over blocks wants.
/// @throws Error(usage) when there are fewer blocks than shares
std::vector<Block> blocks_of_part(const std::vector<Block>& blocks, const PartChoice& choice);

/// Consecutive samples of one calibration file that were observed in one go: what can be merged, and taken out again.
struct CalibrationPart {
  std::string digest;                     // of the calibration file, all of it
  std::int64_t first = 0, last = 0;       // its samples [first, last)
  std::int64_t file_samples = 0;          // that it has in all
  std::int64_t tokens = 0;                // in [first, last)
  std::vector<std::string> domains = {};  // names of the file, in its order

  bool whole() const { return first == 0 && last == file_samples; }
  bool operator==(const CalibrationPart&) const = default;
};

/// The samples of these blocks, which are consecutive.
CalibrationPart part_of(const Calibration& calibration, const std::vector<Block>& blocks);

/// The order of parts wherever there are several.
bool operator<(const CalibrationPart& a, const CalibrationPart& b);

/// "samples 0 to 31 of 64 of calibration 8a1f..." for messages and tables.
std::string describe(const CalibrationPart& part);

/// Identity of a set of parts in their order: the calibration file's own digest when it is one whole file.
std::string digest_of(const std::vector<CalibrationPart>& parts);

/// The domains of a set of parts: the list that all of them have, or else all names in alphabetical order. So the list
/// of a union follows from the lists of its sets, in whatever order they meet.
std::vector<std::string> domains_of(const std::vector<CalibrationPart>& parts);

}  // namespace reap
