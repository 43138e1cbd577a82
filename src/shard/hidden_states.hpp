#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"

namespace reap {

/// The hidden states of the blocks of one wave between its layers, in host memory or in a scratch file. The file has no
/// name: it goes when the process does. What comes back from it is compared with a check sum, because nobody waits for
/// it to be on the disk: a system that fails to write it later may tell nobody.
class HiddenStates {
 public:
  /// @param rows     the most rows of a wave
  /// @param hidden   width
  /// @param scratch  folder of the scratch file; empty = in memory
  /// @throws Error(io)
  HiddenStates(Backend& backend, std::int64_t rows, std::int64_t hidden, const std::filesystem::path& scratch);
  ~HiddenStates();
  HiddenStates(const HiddenStates&) = delete;
  HiddenStates& operator=(const HiddenStates&) = delete;

  /// Begins a wave. @param rows  of each of its blocks
  void begin(const std::vector<std::int64_t>& rows);
  /// @param x  [rows of the block, hidden] of the backend
  /// @throws Error(io), as the other two
  void store(std::size_t block, const float* x);
  void load(std::size_t block, float* x);
  /// As load, into host memory.
  void read(std::size_t block, float* x);

 private:
  class ScratchFile;
  std::int64_t bytes_of(std::size_t block) const { return start_[block + 1] - start_[block]; }
  void read_file(std::size_t block, std::byte* to) const;

  Backend& backend_;
  std::int64_t row_bytes_;
  std::vector<std::int64_t> start_;    // [blocks + 1] in bytes
  std::vector<std::uint64_t> check_;   // [blocks] check sums of what is in the file
  Buffer<std::byte> memory_;           // of all blocks, or of one on its way to or from the file
  std::unique_ptr<ScratchFile> file_;  // null = in memory
};

}  // namespace reap
