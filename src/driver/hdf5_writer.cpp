#include <fmt/ranges.h>

#include <algorithm>

#include "driver/atomic_file.hpp"
#include "driver/hdf5.hpp"
#include "driver/hdf5_library.hpp"
#include "kernels/check.hpp"

namespace reap {

using namespace hdf5;

namespace {

void written(herr_t status, const std::string& what) {
  REAP_CHECK(status >= 0, "HDF5 cannot write {}: {}", what, last_cause().text);
}

Handle written(Handle&& handle, const std::string& what) {
  REAP_CHECK(handle >= 0, "HDF5 cannot write {}: {}", what, last_cause().text);
  return std::move(handle);
}

}  // namespace

// The file is put together in memory (the library's "core" driver) and written by our own code: the library's own
// writing, on a full disk, fails late, in its caches, and leaves half a file.
struct Hdf5Writer::Impl {
  Handle file;
};

Hdf5Writer::Hdf5Writer() {
  enter_library();
  const Handle access = new_properties(H5P_FILE_ACCESS);
  constexpr std::size_t kGrowth = 1 << 20;
  written(H5Pset_fapl_core(access, kGrowth, false), "to memory");
  // Of the encodings that every library since 1.8 reads, the one with checksums: damage is an error, not a crash.
  written(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "to memory");
  const Handle properties = new_properties(H5P_FILE_CREATE);
  written(H5Pset_obj_track_times(properties, false), "to memory");
  impl_ = std::make_unique<Impl>(
      Impl{written(Handle(H5Fcreate("memory", H5F_ACC_TRUNC, properties, access), H5Fclose), "to memory")});
}
Hdf5Writer::~Hdf5Writer() = default;
Hdf5Writer::Hdf5Writer(Hdf5Writer&&) noexcept = default;

void Hdf5Writer::group(const std::string& path) {
  enter_library();
  const Handle properties = new_properties(H5P_GROUP_CREATE);
  written(H5Pset_obj_track_times(properties, false), path);
  written(Handle(H5Gcreate2(impl_->file, path.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), H5Gclose), path);
}

template <class T>
void Hdf5Writer::dataset(const std::string& path, const Extents& extents, std::span<const T> values) {
  enter_library();
  std::int64_t size = 1;
  for (const std::int64_t extent : extents) size *= extent;
  REAP_CHECK(size == static_cast<std::int64_t>(values.size()), "{} is [{}], given {} values", path,
             fmt::join(extents, ", "), values.size());

  const ElementType type = element_type<T>();
  const std::vector<hsize_t> dims(extents.begin(), extents.end());
  const Handle space =
      written(Handle(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose), path);
  const Handle properties = new_properties(H5P_DATASET_CREATE);
  written(H5Pset_obj_track_times(properties, false), path);
  const Handle dataset = written(
      Handle(H5Dcreate2(impl_->file, path.c_str(), type.little, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose),
      path);
  if (size > 0) written(H5Dwrite(dataset, type.native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), path);
}

template void Hdf5Writer::dataset(const std::string&, const Extents&, std::span<const std::int32_t>);
template void Hdf5Writer::dataset(const std::string&, const Extents&, std::span<const std::int64_t>);
template void Hdf5Writer::dataset(const std::string&, const Extents&, std::span<const std::uint8_t>);
template void Hdf5Writer::dataset(const std::string&, const Extents&, std::span<const float>);
template void Hdf5Writer::dataset(const std::string&, const Extents&, std::span<const double>);

namespace {

void write_attribute(hid_t file, const std::string& name, hid_t stored, hid_t native, hid_t space, const void* values) {
  const Handle attribute =
      written(Handle(H5Acreate2(file, name.c_str(), stored, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose), name);
  written(H5Awrite(attribute, native, values), name);
}

/// Of a fixed length, padded by zeros: texts of variable length go to the file's global heap, which has no checksums.
void write_texts(hid_t file, const std::string& name, hid_t space, std::span<const std::string> texts) {
  std::size_t length = 1;  // the library knows no text type of length 0
  for (const std::string& text : texts) length = std::max(length, text.size());
  std::string padded;
  for (const std::string& text : texts) padded += text + std::string(length - text.size(), '\0');

  const Handle type = written(Handle(H5Tcopy(H5T_C_S1), H5Tclose), name);
  written(H5Tset_size(type, length), name);
  written(H5Tset_strpad(type, H5T_STR_NULLPAD), name);
  written(H5Tset_cset(type, H5T_CSET_UTF8), name);
  write_attribute(file, name, type, type, space, padded.data());
}

}  // namespace

void Hdf5Writer::attribute(const std::string& name, const std::string& text) {
  enter_library();
  const Handle space = written(Handle(H5Screate(H5S_SCALAR), H5Sclose), name);
  write_texts(impl_->file, name, space, std::span(&text, 1));
}

void Hdf5Writer::attribute(const std::string& name, const std::vector<std::string>& texts) {
  enter_library();
  const hsize_t size = texts.size();
  const Handle space = written(Handle(H5Screate_simple(1, &size, nullptr), H5Sclose), name);
  write_texts(impl_->file, name, space, texts);
}

void Hdf5Writer::attribute(const std::string& name, std::int64_t integer) {
  enter_library();
  const Handle space = written(Handle(H5Screate(H5S_SCALAR), H5Sclose), name);
  write_attribute(impl_->file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, space, &integer);
}

void Hdf5Writer::save(const std::filesystem::path& file) {
  enter_library();
  written(H5Fflush(impl_->file, H5F_SCOPE_GLOBAL), file.string());
  // The size from H5Fget_file_image, the bytes from the driver: 1.10's own copy breaks the superblock's checksum.
  const ssize_t size = H5Fget_file_image(impl_->file, nullptr, 0);
  void** memory = nullptr;
  written(H5Fget_vfd_handle(impl_->file, H5P_DEFAULT, reinterpret_cast<void**>(&memory)), file.string());
  REAP_CHECK(size > 0 && *memory != nullptr, "HDF5 has no image of {}", file.string());
  write_file_atomically(file, {static_cast<const char*>(*memory), static_cast<std::size_t>(size)});
}

}  // namespace reap
