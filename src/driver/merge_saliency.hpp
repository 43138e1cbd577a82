#pragma once

#include "driver/saliency_file.hpp"

namespace reap {

/// The sums over the samples of both, exactly: any number of files gives the same result, to the bit, in any order and
/// by any intermediate sums. Parts that make up a whole calibration file become that file, so that the sum of all
/// shares of one is what a pass over the whole file gives. What only one of them has collected is left out.
/// @throws Error(bad_input) when they are of different models, block sizes, compute types or numerics, or have samples
/// in common; Error(numerics) when a sum leaves its range
SaliencyFile add(SaliencyFile a, SaliencyFile b);

/// The sums over the samples of `a` that are not in `b`, exactly: subtract(add(a, b), b) is a.
/// @throws Error(bad_input) as for add, and when a part of `b` is not a part of `a`, is there with other sums, or
/// nothing would be left
SaliencyFile subtract(SaliencyFile a, SaliencyFile b);

}  // namespace reap
