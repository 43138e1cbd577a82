#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace reap {

/// Extents of a dataset, slowest axis first.
using Extents = std::vector<std::int64_t>;

// Element types of the templates below: std::int32_t, std::int64_t, std::uint8_t, float, double. They are stored as
// such, in either byte order; no other type is converted into them.

/// A HDF5 file open for reading. What it holds is untrusted: types and ranks are checked, extents are compared with the
/// bytes that the file really has before anything is allocated, and data outside the file (links to other files,
/// external storage, virtual datasets) are refused. To be used by one thread at a time.
class Hdf5Reader {
 public:
  /// @throws Error(bad_input) when it is absent or not a whole HDF5 file, Error(io) when it cannot be opened
  explicit Hdf5Reader(const std::filesystem::path& file);
  ~Hdf5Reader();
  Hdf5Reader(Hdf5Reader&&) noexcept;
  Hdf5Reader& operator=(Hdf5Reader&&) = delete;

  const std::string& file() const;                    // its path, for messages
  bool has(const std::string& path) const;            // a group or dataset of that absolute path
  bool has_attribute(const std::string& name) const;  // of the root group, as all attributes here

  /// The extents of a dataset. @throws Error(bad_input) when it is absent, of another rank or of another type than T
  template <class T>
  Extents extents(const std::string& dataset, int rank) const;

  /// Reads a dataset whole. @throws Error(bad_input) when its extents are not `expected`
  template <class T>
  std::vector<T> read(const std::string& dataset, const Extents& expected) const;

  /// Reads the part of a dataset whose first indices are `leading`.
  /// @throws Error(bad_input) when the dataset's extents are not `expected`
  template <class T>
  std::vector<T> read_slice(const std::string& dataset, const Extents& expected, const Extents& leading) const;

  /// Reads the elements [begin, begin + into.size()) of a dataset of rank 1.
  template <class T>
  void read_range(const std::string& dataset, std::int64_t begin, std::span<T> into) const;

  /// Attributes; text of variable or fixed length, integers of any width.
  /// @throws Error(bad_input) when absent or of another kind
  std::string text(const std::string& attribute) const;
  std::vector<std::string> texts(const std::string& attribute) const;
  std::int64_t integer(const std::string& attribute) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A HDF5 file under construction, in memory, and so for tables only. Calls in the same order with the same values give
/// the same bytes: no clock, no free space, contiguous data. The encoding is that of HDF5 1.8.
class Hdf5Writer {
 public:
  Hdf5Writer();
  ~Hdf5Writer();
  Hdf5Writer(Hdf5Writer&&) noexcept;
  Hdf5Writer& operator=(Hdf5Writer&&) = delete;

  /// The parent group must exist.
  void group(const std::string& path);
  template <class T>
  void dataset(const std::string& path, const Extents& extents, std::span<const T> values);

  /// Attributes of the root group. Text is UTF-8.
  void attribute(const std::string& name, const std::string& text);
  void attribute(const std::string& name, const std::vector<std::string>& texts);
  void attribute(const std::string& name, std::int64_t integer);

  /// Writes the file whole or not at all (driver/atomic_file.hpp). @throws Error(io)
  void save(const std::filesystem::path& file);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reap
