#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "shard/samples.hpp"

namespace reap {

/// An open calibration file (docs/format/calibration.md): samples plus what identifies them.
struct Calibration {
  Samples samples;                        // read_tokens reads from the file, checking ids against the vocabulary
  std::vector<std::string> domain_names;  // [samples.domains]
  std::string digest;                     // xxh3-128 hex over tokens, offsets, domains and names; "" until asked for
  std::string tokenizer_sha256;           // as the file says; "" when it does not
};

/// Opens and checks a calibration file: schema, shapes, offsets ascending from 0 to T, no empty sample, domains known.
/// Tokens are checked against `vocab` as they are read, naming sample and position.
/// @throws Error(bad_input), Error(io)
Calibration open_calibration(const std::filesystem::path& file, std::int64_t vocab);

/// The content digest of an open file; reads all of it once, in pieces.
std::string calibration_digest(const Calibration& calibration);

}  // namespace reap
