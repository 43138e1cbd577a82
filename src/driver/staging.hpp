#pragma once

#include <cstdint>
#include <filesystem>

namespace reap {

/// The temporary directory that an output is made in, beside the place it will have. Nothing stands under the final
/// name before publish(). Made and moved by one rank; the others only need the names.
class Staging {
 public:
  explicit Staging(const std::filesystem::path& output);

  const std::filesystem::path& output() const { return output_; }
  const std::filesystem::path& directory() const { return partial_; }  // while it is being made

  /// Checks what can be known before anything is computed: where the output lies, and what stands there.
  /// @throws Error(bad_input)
  void check(const std::filesystem::path& source, bool overwrite) const;

  /// Checks again, removes what an interrupted run left, and makes the temporary directory.
  /// @param source     the directory that the output is made from; neither may contain the other
  /// @param bytes      how much will be written
  /// @param overwrite  an existing output will be replaced: only one that this program wrote, or an empty directory
  /// @throws Error(bad_input), Error(io) when there is not enough space
  void create(const std::filesystem::path& source, std::uint64_t bytes, bool overwrite) const;

  /// Gives the finished directory its final name, durably. An output that stands there is kept until the new one has
  /// its place. @throws Error(io)
  void publish() const;

  /// Removes the temporary directory, whatever is in it. Failures are not reported: another error is on its way.
  void discard() const noexcept;

 private:
  void recover() const;
  std::filesystem::path output_;
  std::filesystem::path partial_;   // the new one while it is made
  std::filesystem::path replaced_;  // the old one while the new one is given its name
};

}  // namespace reap
