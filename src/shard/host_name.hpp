#pragma once

#include <string>

namespace reap {

/// Of the node this process runs on; "unknown" if it does not say.
std::string host_name();

}  // namespace reap
