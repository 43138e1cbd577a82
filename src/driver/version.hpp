#pragma once

#include <string>

namespace reap {

/// "0.1.0 (git 1a2b3c4)", or without the part in brackets when built outside a git checkout.
std::string version();

/// "0.1.0": the part that goes into files, so that two builds of one release write the same bytes.
std::string release();

}  // namespace reap
