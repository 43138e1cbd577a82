#include "observe_fixture.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "golden.hpp"
#include "kernels/cuda_module.hpp"
#include "shard/families.hpp"
#include "shard/observation.hpp"

namespace reap::test {

Samples samples_in_memory(std::vector<std::int64_t> offsets, std::vector<std::int32_t> tokens,
                          std::vector<std::uint8_t> domain, std::int64_t domains) {
  Samples samples;
  samples.offsets = std::move(offsets);
  samples.domain = std::move(domain);
  samples.domains = domains;
  samples.read_tokens = [all = std::move(tokens)](std::int64_t begin, std::int64_t end) {
    return std::vector<std::int32_t>(all.begin() + begin, all.begin() + end);
  };
  return samples;
}

Samples read_samples(const std::filesystem::path& file) {
  const GoldenFile golden(file);
  const std::vector<std::int64_t> tokens = golden.integers("tokens");
  const std::vector<std::int64_t> domain = golden.integers("domain");
  const std::int64_t domains = 1 + *std::max_element(domain.begin(), domain.end());
  return samples_in_memory(golden.integers("offsets"), {tokens.begin(), tokens.end()}, {domain.begin(), domain.end()},
                           domains);
}

namespace {

/// REAP_TEST_DEVICE=cuda takes whole passes to the first GPU (bench/gpu_session.sh).
std::unique_ptr<Backend> backend_under_test(Compute compute) {
  const char* device = std::getenv("REAP_TEST_DEVICE");
  if (device != nullptr && std::string_view(device) == "cuda") return make_cuda_backend(compute, 0);
  return make_cpu_backend(compute, 1, CpuIsa::automatic);
}

}  // namespace

Observer::Observer(const std::filesystem::path& checkpoint, Samples samples, std::int64_t block_tokens)
    : checkpoint_{checkpoint},
      model_{describe_model(checkpoint_)},
      samples_{std::move(samples)},
      blocks_{make_blocks(samples_.offsets, block_tokens)} {}

void Observer::all_pass(
    const Comm& comm, const Grid& grid, const Manner& manner,
    const std::function<void(Pulse& pulse, const PassPlan& plan, Backend& backend)>& all_run) const {
  const auto make_backend = [&] { return backend_under_test(manner.compute); };
  const auto backend = make_backend();
  const Placement placement = place(model_, grid, comm.rank());
  Pulse pulse(comm, std::chrono::seconds(60));
  const PassPlan plan{.checkpoint = checkpoint_,
                      .model = model_,
                      .placement = placement,
                      .samples = samples_,
                      .blocks = blocks_,
                      .holding = manner.holding,
                      .scratch = manner.scratch,
                      .start = manner.start,
                      .make_backend = make_backend,
                      .connect = manner.connect,
                      .variants = manner.variants,
                      .collected = manner.collected};
  all_run(pulse, plan, *backend);
}

Saliency Observer::all_run(const Comm& comm, const Grid& grid, const Manner& manner) const {
  Saliency saliency;
  all_pass(comm, grid, manner, [&](Pulse& pulse, const PassPlan& plan, Backend& backend) {
    saliency = all_observe(comm, pulse, plan, backend, manner.events);
  });
  return saliency;
}

}  // namespace reap::test
