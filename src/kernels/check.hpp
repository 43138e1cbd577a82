#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

#include "kernels/error.hpp"

namespace reap {

/// Throws an Error a user can act on: what is wrong, where, what to do.
template <class... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace reap

/// An invariant of our own code (exit code 70). What a user can cause is reported with reap::fail instead.
/// A macro because clang-tidy 14 has no std::source_location.
#define REAP_CHECK(condition, ...)                                                                       \
  do {                                                                                                   \
    if (!(condition)) {                                                                                  \
      ::reap::fail(::reap::ExitCode::bug, "{} ({}:{})", fmt::format(__VA_ARGS__), __FILE__, __LINE__);   \
    }                                                                                                    \
  } while (false)
