#include <fmt/ranges.h>

#include <algorithm>

#include "driver/hdf5.hpp"
#include "driver/hdf5_library.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"

namespace reap {

using namespace hdf5;

namespace {

constexpr hsize_t kMaxAttributeBytes = 1 << 20;
// Deflate, the filter of h5py's compression, expands by at most 1032; anything far beyond that is a bomb.
constexpr std::uint64_t kMaxExpansion = 2048;

[[noreturn]] void fail_reading(const std::string& file, const std::string& what) {
  const Cause cause = last_cause();
  if (cause.of_system) fail(ExitCode::io, "{}: cannot read {}: {}", file, what, cause.text);
  fail(ExitCode::bad_input, "{}: {} is damaged: {}", file, what, cause.text);
}

std::string type_text(hid_t type) {
  const std::size_t bits = H5Tget_size(type) * 8;
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return fmt::format("{}int{}", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    case H5T_FLOAT:
      return fmt::format("float{}", bits);
    case H5T_STRING:
      return "text";
    default:
      return "neither numbers nor text";
  }
}

}  // namespace

struct Hdf5Reader::Impl {
  std::string name;
  Handle file;
  std::uint64_t file_bytes;

  bool exists(const std::string& path) const;
  Handle open_dataset(const std::string& path, int rank, const ElementType& type, Extents& extents) const;
  /// The same, whose extents have to be `expected`.
  Handle open_expected(const std::string& path, const ElementType& type, const Extents& expected) const;
  void check_storage(hid_t dataset, const std::string& path, const Extents& extents, std::size_t element_bytes) const;
  void check_chunks(hid_t properties, const std::string& path, std::uint64_t bytes, std::uint64_t stored,
                    std::size_t element_bytes) const;
  Handle open_attribute(const std::string& attribute) const;
  std::vector<std::string> read_texts(const std::string& attribute) const;
};

namespace {

Handle open_for_reading(const std::string& name) {
  const Handle access = new_properties(H5P_FILE_ACCESS);
  // Our files are published whole, so a lock protects nothing, and file systems without flock would refuse to open
  // them.
  H5Pset_file_locking(access, false, true);
  Handle file(H5Fopen(name.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (file >= 0) return file;
  const Cause cause = last_cause();
  if (cause.of_system) fail(ExitCode::io, "{}: cannot be opened: {}", name, cause.text);
  fail(ExitCode::bad_input, "{}: not a HDF5 file, or not a whole one: {}", name, cause.text);
}

}  // namespace

Hdf5Reader::Hdf5Reader(const std::filesystem::path& file) {
  enter_library();
  const std::string name = file.string();
  const std::uint64_t bytes = InputFile(file).size();  // refuses what is absent or no regular file
  impl_ = std::make_unique<Impl>(Impl{name, open_for_reading(name), bytes});
}
Hdf5Reader::~Hdf5Reader() = default;
Hdf5Reader::Hdf5Reader(Hdf5Reader&&) noexcept = default;

const std::string& Hdf5Reader::file() const { return impl_->name; }

bool Hdf5Reader::has(const std::string& path) const {
  enter_library();
  return impl_->exists(path);
}

bool Hdf5Reader::has_attribute(const std::string& name) const {
  enter_library();
  return H5Aexists(impl_->file, name.c_str()) > 0;
}

/// Link by link: H5Lexists fails on a path whose parent is missing, and a link must not lead out of the file.
bool Hdf5Reader::Impl::exists(const std::string& path) const {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (H5Lexists(file, part.c_str(), H5P_DEFAULT) <= 0) return false;
    H5L_info_t link{};
    if (H5Lget_info(file, part.c_str(), &link, H5P_DEFAULT) < 0) fail_reading(name, part);
    if (link.type != H5L_TYPE_HARD)
      fail(ExitCode::bad_input, "{}: {} is a link; the data must be in the file", name, part);
    if (end == std::string::npos) return true;
  }
}

Handle Hdf5Reader::Impl::open_dataset(const std::string& path, int rank, const ElementType& type,
                                      Extents& extents) const {
  if (!exists(path)) fail(ExitCode::bad_input, "{}: there is no dataset {}", name, path);
  Handle dataset(H5Dopen2(file, path.c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset < 0) fail_reading(name, path);

  const Handle stored_type(H5Dget_type(dataset), H5Tclose);
  if (stored_type < 0) fail_reading(name, path);
  if (H5Tequal(stored_type, type.little) <= 0 && H5Tequal(stored_type, type.big) <= 0) {
    fail(ExitCode::bad_input, "{}: {} holds {}, expected {}", name, path, type_text(stored_type), type.name);
  }

  const Handle space(H5Dget_space(dataset), H5Sclose);
  if (space < 0) fail_reading(name, path);
  const int stored_rank = H5Sget_simple_extent_type(space) == H5S_NULL ? -1 : H5Sget_simple_extent_ndims(space);
  if (stored_rank != rank) {
    fail(ExitCode::bad_input, "{}: {} has {} dimensions, expected {}", name, path, std::max(stored_rank, 0), rank);
  }
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  if (H5Sget_simple_extent_dims(space, dims.data(), nullptr) < 0) fail_reading(name, path);
  extents.assign(dims.begin(), dims.end());
  check_storage(dataset, path, extents, H5Tget_size(type.native));
  return dataset;
}

/// Compares what the dataset claims to hold with what the file can hold.
void Hdf5Reader::Impl::check_storage(hid_t dataset, const std::string& path, const Extents& extents,
                                     std::size_t element_bytes) const {
  std::int64_t bytes = static_cast<std::int64_t>(element_bytes);
  for (const std::int64_t extent : extents) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) {
      fail(ExitCode::bad_input, "{}: {} has impossible extents [{}]", name, path, fmt::join(extents, ", "));
    }
  }
  if (bytes == 0) return;

  const Handle properties(H5Dget_create_plist(dataset), H5Pclose);
  if (properties < 0) fail_reading(name, path);
  const H5D_layout_t layout = H5Pget_layout(properties);
  if (layout == H5D_VIRTUAL || (layout == H5D_CONTIGUOUS && H5Pget_external_count(properties) != 0)) {
    fail(ExitCode::bad_input, "{}: the data of {} are in other files; copy them into this one", name, path);
  }
  const auto needed = static_cast<std::uint64_t>(bytes);
  const std::uint64_t stored = std::min<std::uint64_t>(H5Dget_storage_size(dataset), file_bytes);
  const bool filtered = H5Pget_nfilters(properties) > 0;
  if (needed / (filtered ? kMaxExpansion : 1) > stored) {
    fail(ExitCode::bad_input, "{}: {} is [{}], {} bytes, of which the file holds {}; it was not written to its end",
         name, path, fmt::join(extents, ", "), needed, stored);
  }
  if (layout == H5D_CHUNKED) check_chunks(properties, path, needed, stored, element_bytes);
}

/// The library allocates whole chunks, so their size must be plausible as well.
void Hdf5Reader::Impl::check_chunks(hid_t properties, const std::string& path, std::uint64_t bytes,
                                    std::uint64_t stored, std::size_t element_bytes) const {
  std::vector<hsize_t> chunk(H5S_MAX_RANK);
  const int rank = H5Pget_chunk(properties, H5S_MAX_RANK, chunk.data());
  if (rank < 0) fail_reading(name, path);
  std::uint64_t chunk_bytes = element_bytes;
  for (int axis = 0; axis < rank; ++axis) {
    if (__builtin_mul_overflow(chunk_bytes, chunk[static_cast<std::size_t>(axis)], &chunk_bytes))
      chunk_bytes = UINT64_MAX;
  }
  if (chunk_bytes / kMaxExpansion > std::max(bytes, stored)) {
    fail(ExitCode::bad_input, "{}: the chunks of {} have {} bytes each, for {} bytes of data", name, path, chunk_bytes,
         bytes);
  }
}

template <class T>
Extents Hdf5Reader::extents(const std::string& dataset, int rank) const {
  enter_library();
  Extents extents;
  impl_->open_dataset(dataset, rank, element_type<T>(), extents);
  return extents;
}

Handle Hdf5Reader::Impl::open_expected(const std::string& path, const ElementType& type,
                                       const Extents& expected) const {
  Extents extents;
  Handle handle = open_dataset(path, static_cast<int>(expected.size()), type, extents);
  if (extents == expected) return handle;
  fail(ExitCode::bad_input, "{}: {} is [{}], expected [{}]", name, path, fmt::join(extents, ", "),
       fmt::join(expected, ", "));
}

template <class T>
std::vector<T> Hdf5Reader::read(const std::string& dataset, const Extents& expected) const {
  enter_library();
  const ElementType type = element_type<T>();
  const Handle handle = impl_->open_expected(dataset, type, expected);
  std::size_t size = 1;
  for (const std::int64_t extent : expected) size *= static_cast<std::size_t>(extent);
  std::vector<T> values(size);
  if (size == 0) return values;
  if (H5Dread(handle, type.native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) {
    fail_reading(impl_->name, dataset);
  }
  return values;
}

template <class T>
std::vector<T> Hdf5Reader::read_slice(const std::string& dataset, const Extents& expected,
                                      const Extents& leading) const {
  enter_library();
  const ElementType type = element_type<T>();
  const Handle handle = impl_->open_expected(dataset, type, expected);
  std::vector<hsize_t> start(expected.size()), count(expected.begin(), expected.end());
  for (std::size_t axis = 0; axis < leading.size(); ++axis) {
    REAP_CHECK(leading[axis] >= 0 && leading[axis] < expected[axis], "{}: {}: index {} of axis {}", impl_->name,
               dataset, leading[axis], axis);
    start[axis] = static_cast<hsize_t>(leading[axis]);
    count[axis] = 1;
  }
  hsize_t size = 1;
  for (const hsize_t extent : count) size *= extent;
  std::vector<T> values(size);
  const Handle in_file(H5Dget_space(handle), H5Sclose);
  const Handle in_memory(H5Screate_simple(1, &size, nullptr), H5Sclose);
  if (in_file < 0 || in_memory < 0 ||
      H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dread(handle, type.native, in_memory, in_file, H5P_DEFAULT, values.data()) < 0) {
    fail_reading(impl_->name, fmt::format("{}[{}]", dataset, fmt::join(leading, ", ")));
  }
  return values;
}

template <class T>
void Hdf5Reader::read_range(const std::string& dataset, std::int64_t begin, std::span<T> into) const {
  enter_library();
  if (into.empty()) return;
  const ElementType type = element_type<T>();
  Extents extents;
  const Handle handle = impl_->open_dataset(dataset, 1, type, extents);
  const auto size = static_cast<std::int64_t>(into.size());
  REAP_CHECK(begin >= 0 && size <= extents[0] && begin <= extents[0] - size, "{}: {}[{}, {}) is beyond its end, {}",
             impl_->name, dataset, begin, begin + size, extents[0]);

  const hsize_t start = static_cast<hsize_t>(begin), count = into.size();
  const Handle in_file(H5Dget_space(handle), H5Sclose);
  const Handle in_memory(H5Screate_simple(1, &count, nullptr), H5Sclose);
  if (in_file < 0 || in_memory < 0 ||
      H5Sselect_hyperslab(in_file, H5S_SELECT_SET, &start, nullptr, &count, nullptr) < 0 ||
      H5Dread(handle, type.native, in_memory, in_file, H5P_DEFAULT, into.data()) < 0) {
    fail_reading(impl_->name, fmt::format("{}[{}, {})", dataset, begin, begin + size));
  }
}

template Extents Hdf5Reader::extents<std::int32_t>(const std::string&, int) const;
template Extents Hdf5Reader::extents<std::int64_t>(const std::string&, int) const;
template Extents Hdf5Reader::extents<std::uint8_t>(const std::string&, int) const;
template Extents Hdf5Reader::extents<float>(const std::string&, int) const;
template Extents Hdf5Reader::extents<double>(const std::string&, int) const;
template std::vector<std::int32_t> Hdf5Reader::read(const std::string&, const Extents&) const;
template std::vector<std::int64_t> Hdf5Reader::read(const std::string&, const Extents&) const;
template std::vector<std::uint8_t> Hdf5Reader::read(const std::string&, const Extents&) const;
template std::vector<float> Hdf5Reader::read(const std::string&, const Extents&) const;
template std::vector<double> Hdf5Reader::read(const std::string&, const Extents&) const;
template std::vector<std::int64_t> Hdf5Reader::read_slice(const std::string&, const Extents&, const Extents&) const;
template void Hdf5Reader::read_range(const std::string&, std::int64_t, std::span<std::int32_t>) const;
template void Hdf5Reader::read_range(const std::string&, std::int64_t, std::span<float>) const;

Handle Hdf5Reader::Impl::open_attribute(const std::string& attribute) const {
  if (H5Aexists(file, attribute.c_str()) <= 0) {
    fail(ExitCode::bad_input, "{}: there is no attribute \"{}\"", name, attribute);
  }
  Handle handle(H5Aopen(file, attribute.c_str(), H5P_DEFAULT), H5Aclose);
  if (handle < 0) fail_reading(name, "attribute " + attribute);
  const hsize_t bytes = H5Aget_storage_size(handle);
  if (bytes > std::min<hsize_t>(kMaxAttributeBytes, file_bytes)) {
    fail(ExitCode::bad_input, "{}: attribute \"{}\" has {} bytes, more than is plausible", name, attribute, bytes);
  }
  return handle;
}

namespace {

/// `size` texts of a variable length each, which the library allocates.
std::vector<std::string> read_variable_texts(hid_t attribute, hid_t type, hid_t space, std::size_t size, bool& ok) {
  std::vector<char*> raw(size, nullptr);
  ok = H5Aread(attribute, type, raw.data()) >= 0;
  std::vector<std::string> texts;
  for (const char* text : raw) texts.emplace_back(text == nullptr ? "" : text);
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, raw.data());
  return texts;
}

/// `size` texts of the type's length each, padded by zeros or blanks.
std::vector<std::string> read_fixed_texts(hid_t attribute, hid_t type, std::size_t size, bool& ok) {
  const std::size_t length = H5Tget_size(type);
  std::string raw(size * length, '\0');
  ok = H5Aread(attribute, type, raw.data()) >= 0;
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < size; ++i) {
    std::string text = raw.substr(i * length, length);
    text.resize(std::min(text.find('\0'), length));
    if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) text.resize(text.find_last_not_of(' ') + 1);
    texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace

std::vector<std::string> Hdf5Reader::Impl::read_texts(const std::string& attribute) const {
  const Handle handle = open_attribute(attribute);
  const Handle type(H5Aget_type(handle), H5Tclose);
  const Handle space(H5Aget_space(handle), H5Sclose);
  if (type < 0 || space < 0) fail_reading(name, "attribute " + attribute);
  if (H5Tget_class(type) != H5T_STRING) {
    fail(ExitCode::bad_input, "{}: attribute \"{}\" holds {}, expected text", name, attribute, type_text(type));
  }
  const auto size = static_cast<std::size_t>(std::max<hssize_t>(H5Sget_simple_extent_npoints(space), 0));
  bool ok = false;
  auto texts = H5Tis_variable_str(type) > 0 ? read_variable_texts(handle, type, space, size, ok)
                                            : read_fixed_texts(handle, type, size, ok);
  if (!ok) fail_reading(name, "attribute " + attribute);
  return texts;
}

std::vector<std::string> Hdf5Reader::texts(const std::string& attribute) const {
  enter_library();
  return impl_->read_texts(attribute);
}

std::string Hdf5Reader::text(const std::string& attribute) const {
  enter_library();
  const std::vector<std::string> texts = impl_->read_texts(attribute);
  if (texts.size() != 1) {
    fail(ExitCode::bad_input, "{}: attribute \"{}\" holds {} texts, expected one", impl_->name, attribute,
         texts.size());
  }
  return texts[0];
}

std::int64_t Hdf5Reader::integer(const std::string& attribute) const {
  enter_library();
  const Handle handle = impl_->open_attribute(attribute);
  const Handle type(H5Aget_type(handle), H5Tclose);
  const Handle space(H5Aget_space(handle), H5Sclose);
  if (type < 0 || space < 0) fail_reading(impl_->name, "attribute " + attribute);
  if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1) {
    fail(ExitCode::bad_input, "{}: attribute \"{}\" is not an integer", impl_->name, attribute);
  }
  std::int64_t value = 0;
  if (H5Aread(handle, H5T_NATIVE_INT64, &value) < 0) fail_reading(impl_->name, "attribute " + attribute);
  return value;
}

}  // namespace reap
