#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "driver/copy_file.hpp"
#include "driver/output_plan.hpp"

namespace reap {

/// What an interrupted job leaves for the next one, in a folder `.reap-unfinished` of the output's temporary directory
/// (docs/format/pruned_model.md): a stamp that says what is being written, and for every finished file its digests.
/// Stamp and records are written whole or not at all, and a record only when its file is on the disk.
class UnfinishedOutput {
 public:
  /// @param directory  the temporary directory of the output
  explicit UnfinishedOutput(const std::filesystem::path& directory);

  /// Whether the directory holds the beginning of just this output.
  bool has_stamp(const std::string& stamp) const;
  /// Marks a new directory. @throws Error(io)
  void write_stamp(const std::string& stamp) const;

  /// Notes that `file` is on the disk. @throws Error(io)
  void record(const OutputFile& file, const FileDigests& digests) const;
  /// What was noted of `file`, when it is there and has its size; whatever is unclear counts as not finished.
  std::optional<FileDigests> find(const OutputFile& file) const;
  /// Removes all files but those named and their records. @throws Error(io)
  void keep_only(const std::vector<std::string>& files) const;

  /// Removes stamp and records: the output is complete. @throws Error(io)
  void remove() const;

 private:
  std::filesystem::path record_of(const std::string& file) const;
  std::filesystem::path directory_;
  std::filesystem::path notes_;
};

/// Identifies all that the bytes of an output depend on. For a source it goes by sizes and times of its files, for
/// their contents are only read when they are copied.
std::string output_stamp(const Checkpoint& source, const std::string& source_digest, const Plan& plan,
                         const WriteOptions& options);

}  // namespace reap
