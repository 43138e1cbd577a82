#pragma once

#include <nvtx3/nvtx3.hpp>

namespace reap::cuda {

/// A span of time that a profiler shows under its name, from here to the end of the scope.
struct ReapDomain {
  static constexpr const char* name{"reap"};
};
using Range = nvtx3::scoped_range_in<ReapDomain>;

}  // namespace reap::cuda
