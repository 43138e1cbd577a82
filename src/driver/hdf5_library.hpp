#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace reap::hdf5 {

/// What hdf5_reader.cpp and hdf5_writer.cpp share. No other file may include this one, nor hdf5.h.

/// Must come before every use of the library, on every thread.
void enter_library();

/// Owns a HDF5 identifier.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_{id}, close_{close} {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(Handle&& other) noexcept : id_{std::exchange(other.id_, H5I_INVALID_HID)}, close_{other.close_} {}
  Handle& operator=(Handle&&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

/// The innermost entry of the library's error stack.
struct Cause {
  std::string text = "no reason given";
  bool of_system = false;  // a system call failed, as against the file being malformed
};
Cause last_cause();

/// A new property list of a class such as H5P_DATASET_CREATE.
Handle new_properties(hid_t property_class);

/// An element type as stored and in memory. The library's identifiers are known only at run time.
struct ElementType {
  const char* name;
  hid_t little, big, native;
};

template <class T>
ElementType element_type() {
  if constexpr (std::is_same_v<T, std::int32_t>) {
    return {"int32", H5T_STD_I32LE, H5T_STD_I32BE, H5T_NATIVE_INT32};
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    return {"int64", H5T_STD_I64LE, H5T_STD_I64BE, H5T_NATIVE_INT64};
  } else if constexpr (std::is_same_v<T, std::uint8_t>) {
    return {"uint8", H5T_STD_U8LE, H5T_STD_U8BE, H5T_NATIVE_UINT8};
  } else if constexpr (std::is_same_v<T, float>) {
    return {"float32", H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT};
  } else {
    static_assert(std::is_same_v<T, double>);
    return {"float64", H5T_IEEE_F64LE, H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE};
  }
}

}  // namespace reap::hdf5
