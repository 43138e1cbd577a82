// Writes a calibration file that a job is busy with for a while: long_calibration FILE SAMPLES
// 512 tokens each, of the vocabulary of the bundled models.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "driver/hdf5.hpp"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  constexpr std::int64_t kLength = 512;
  constexpr std::int64_t kVocab = 200;
  const std::int64_t samples = std::atoll(argv[2]);
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> offsets{0};
  std::uint64_t state = 1;
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    for (std::int64_t i = 0; i < kLength; ++i) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      tokens.push_back(static_cast<std::int32_t>((state >> 33) % kVocab));
    }
    offsets.push_back(static_cast<std::int64_t>(tokens.size()));
  }
  reap::Hdf5Writer file;
  file.attribute("schema", std::string("reap-calibration-1"));
  file.dataset<std::int32_t>("/tokens", {static_cast<std::int64_t>(tokens.size())}, tokens);
  file.dataset<std::int64_t>("/offsets", {static_cast<std::int64_t>(offsets.size())}, offsets);
  file.save(argv[1]);
}
