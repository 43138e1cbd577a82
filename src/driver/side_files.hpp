#pragma once

#include <string>
#include <vector>

#include "shard/checkpoint.hpp"

namespace reap {

/// The side files of a source that its pruned models get copies of: all but those that this program wrote about the
/// source itself (it may be a pruned model), which do not hold for what is made from it.
std::vector<std::string> inherited_side_files(const Checkpoint& source);

}  // namespace reap
