#include "driver/hdf5_library.hpp"

#include <mutex>

#include "kernels/check.hpp"

namespace reap::hdf5 {

void enter_library() {
  // The library's exit handler flushes once more what a full disk has already refused, and crashes on it.
  static std::once_flag once;
  std::call_once(once, [] { H5dont_atexit(); });
  // Printing of errors is switched off per thread.
  thread_local const bool quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  REAP_CHECK(quiet, "HDF5 cannot be initialised");
}

Cause last_cause() {
  Cause cause;
  const auto innermost = [](unsigned depth, const H5E_error2_t* entry, void* into) -> herr_t {
    auto& out = *static_cast<Cause*>(into);
    if (depth == 0) {
      out.text = entry->desc;
      // Opening reports under another class than reading and writing, but both tell the system's number.
      out.of_system = entry->maj_num == H5E_IO || out.text.find("errno = ") != std::string::npos;
    }
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, &cause);
  return cause;
}

Handle new_properties(hid_t property_class) {
  Handle list(H5Pcreate(property_class), H5Pclose);
  REAP_CHECK(list >= 0, "HDF5 cannot make a property list: {}", last_cause().text);
  return list;
}

}  // namespace reap::hdf5
