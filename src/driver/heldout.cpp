#include "driver/heldout.hpp"

#include <algorithm>
#include <utility>

#include "kernels/check.hpp"

namespace reap {

Samples first_of_each_domain(const Samples& samples, std::int64_t count) {
  if (count == 0) return samples;
  std::vector<std::int64_t> taken(static_cast<std::size_t>(samples.domains));
  std::vector<std::int64_t> from;  // first token in the file of each sample taken
  Samples some;
  some.offsets = {0};
  some.domains = samples.domains;
  for (std::size_t sample = 0; sample < samples.domain.size(); ++sample) {
    if (++taken[samples.domain[sample]] > count) continue;
    from.push_back(samples.offsets[sample]);
    some.offsets.push_back(some.offsets.back() + samples.offsets[sample + 1] - samples.offsets[sample]);
    some.domain.push_back(samples.domain[sample]);
  }
  some.read_tokens = [read = samples.read_tokens, from = std::move(from), offsets = some.offsets](std::int64_t begin,
                                                                                                  std::int64_t end) {
    std::vector<std::int32_t> tokens;
    auto sample = static_cast<std::size_t>(std::ranges::upper_bound(offsets, begin) - offsets.begin()) - 1;
    for (; begin < end; ++sample) {
      const std::int64_t stop = std::min(end, offsets[sample + 1]);
      const std::int64_t first = from[sample] + begin - offsets[sample];
      const std::vector<std::int32_t> part = read(first, first + stop - begin);
      tokens.insert(tokens.end(), part.begin(), part.end());
      begin = stop;
    }
    return tokens;
  };
  return some;
}

Calibration all_open_heldout(Job& job, std::int64_t vocab) {
  const Options& o = job.options;
  Calibration heldout;
  job.world.all_try([&] {
    if (o.heldout.empty()) fail(ExitCode::usage, "--heldout is missing: the tokenised samples to predict (HDF5)");
    heldout = open_calibration(o.heldout, vocab);
    if (job.world.rank() == 0) heldout.digest = calibration_digest(heldout);
    heldout.samples = first_of_each_domain(heldout.samples, o.samples_per_domain);
    const auto samples = heldout.samples.samples();
    if (heldout.samples.tokens() > samples) return;
    fail(ExitCode::bad_input, "{}: its {} samples are of one token each: there is nothing to predict",
         o.heldout.string(), samples);
  });
  heldout.digest = job.world.all_broadcast(0, heldout.digest);
  return heldout;
}

}  // namespace reap
