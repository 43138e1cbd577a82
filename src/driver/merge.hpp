#pragma once

#include "driver/commands.hpp"

namespace reap {

/// The command `merge`: adds the saliency files of options.paths, takes those of options.subtract out of the sum and
/// writes options.saliency. Rank 0 does it alone. Collective.
void merge(Job& job);

}  // namespace reap
