#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace reap {

/// The temporary directory that an output is made in, beside the place it will have. Nothing stands under the final
/// name before publish(). Made and moved by one rank; the others only need the names.
class Staging {
 public:
  explicit Staging(const std::filesystem::path& output);

  const std::filesystem::path& output() const { return output_; }
  const std::filesystem::path& directory() const { return partial_; }  // while it is being made

  bool exists() const;  // the output, whole or not what it seems

  /// The output is not the source, in it or around it. @throws Error(bad_input)
  void check_place(const std::filesystem::path& source) const;
  /// Its place, and what stands there. @throws Error(bad_input)
  void check(const std::filesystem::path& source, bool overwrite) const;

  /// Puts an output back that an interrupted run was about to replace. @throws Error(io)
  void recover() const;

  /// Checks again and makes the temporary directory. One that an interrupted run left is kept when it has the same
  /// stamp, and removed otherwise.
  /// @param source     the directory that the output is made from; neither may contain the other
  /// @param bytes      how much there will be in it
  /// @param overwrite  an existing output will be replaced: only one that this program wrote, or an empty directory
  /// @param stamp      says what will be written, see output_stamp()
  /// @throws Error(bad_input), Error(io) when there is not enough space
  void create(const std::filesystem::path& source, std::uint64_t bytes, bool overwrite, const std::string& stamp) const;

  /// Gives the finished directory its final name, durably, without stamp and records. An output that stands there is
  /// kept until the new one has its place. @throws Error(io)
  void publish() const;

  /// Removes the temporary directory, whatever is in it. Failures are not reported: another error is on its way.
  void discard() const noexcept;

 private:
  std::filesystem::path output_;
  std::filesystem::path partial_;   // the new one while it is made
  std::filesystem::path replaced_;  // the old one while the new one is given its name
};

}  // namespace reap
