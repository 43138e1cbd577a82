#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"

namespace reap {

/// The hidden states of the blocks of one wave between its layers, in host memory or in a scratch file. The file has no
/// name: it goes when the process does.
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
  void store(std::size_t block, const float* x);
  void load(std::size_t block, float* x);
  /// As load, into host memory.
  void read(std::size_t block, float* x);

 private:
  class ScratchFile;
  std::int64_t bytes_of(std::size_t block) const { return start_[block + 1] - start_[block]; }

  Backend& backend_;
  std::int64_t row_bytes_;
  std::vector<std::int64_t> start_;    // [blocks + 1] in bytes
  Buffer<std::byte> memory_;           // of all blocks, or of one on its way to or from the file
  std::unique_ptr<ScratchFile> file_;  // null = in memory
};

}  // namespace reap
