#include "golden.hpp"

#include <hdf5.h>

#include <cstdlib>
#include <functional>
#include <stdexcept>

namespace reap::test {
namespace {

template <class T>
std::vector<T> read(hid_t file, const std::string& name, const std::filesystem::path& path, hid_t type) {
  const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
  if (dataset < 0) throw std::runtime_error(path.string() + " has no " + name);
  const hid_t space = H5Dget_space(dataset);
  std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
  const herr_t status = H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  H5Sclose(space);
  H5Dclose(dataset);
  if (status < 0) throw std::runtime_error(path.string() + ": cannot read " + name);
  return values;
}

herr_t collect(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

std::filesystem::path below(const char* variable, const std::filesystem::path& otherwise,
                            const std::filesystem::path& path) {
  const char* root = std::getenv(variable);
  return (root != nullptr ? std::filesystem::path(root) : otherwise) / path;
}

}  // namespace

GoldenFile::GoldenFile(std::filesystem::path file)
    : file_{std::move(file)}, id_{H5Fopen(file_.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT)} {
  if (id_ < 0) throw std::runtime_error("cannot open " + file_.string());
}

GoldenFile::~GoldenFile() { H5Fclose(id_); }

bool GoldenFile::has(const std::string& name) const { return H5Lexists(id_, name.c_str(), H5P_DEFAULT) > 0; }

std::vector<std::string> GoldenFile::members() const {
  std::vector<std::string> names;
  H5Literate(id_, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names);
  return names;
}

std::vector<std::int64_t> GoldenFile::shape(const std::string& name) const {
  const hid_t dataset = H5Dopen2(id_, name.c_str(), H5P_DEFAULT);
  if (dataset < 0) throw std::runtime_error(file_.string() + " has no " + name);
  const hid_t space = H5Dget_space(dataset);
  std::vector<hsize_t> extent(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  H5Sclose(space);
  H5Dclose(dataset);
  return {extent.begin(), extent.end()};
}

std::vector<double> GoldenFile::reals(const std::string& name) const {
  return read<double>(id_, name, file_, H5T_NATIVE_DOUBLE);
}

std::vector<std::int64_t> GoldenFile::integers(const std::string& name) const {
  return read<std::int64_t>(id_, name, file_, H5T_NATIVE_INT64);
}

std::filesystem::path data(const std::filesystem::path& path) { return below("REAP_TEST_DATA", REAP_TEST_DATA, path); }

std::filesystem::path shared(const std::filesystem::path& path) {
  return below("REAP_SHARED", data("../../../shared"), path);
}

}  // namespace reap::test
