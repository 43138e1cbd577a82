#include "driver/device.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/cuda_module.hpp"

namespace reap {
namespace {

constexpr std::int64_t kUsableTenths = 9;  // of a GPU's memory: CUDA and its libraries take some

/// The first rank that has no GPU and why, or "".
std::string all_find_lack(const Comm& world, const std::string& why) {
  const std::vector<std::string> all = world.all_gather(why);
  const auto lacking = std::find_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
  if (lacking == all.end()) return "";
  return fmt::format("rank {} has no GPU: {}", lacking - all.begin(), *lacking);
}

}  // namespace

Device all_choose_device(const Comm& world, DeviceChoice wanted, Log& log) {
  if (wanted == DeviceChoice::cpu) return {};
  const CudaDevices found = find_cuda_devices();
  const std::string lack = all_find_lack(world, found.why_none);
  world.all_try([&] {
    if (wanted == DeviceChoice::cuda && !lack.empty()) {
      fail(ExitCode::usage, "--device cuda: {}; --device auto or cpu computes on CPUs", lack);
    }
  });
  if (!lack.empty()) {
    log.info(fmt::format("device: CPUs; {}", lack));
    return {};
  }

  // Not by index: a launcher may show every rank another GPU, as number 0.
  const Comm node = world.split_by_node();
  const std::size_t index = static_cast<std::size_t>(node.rank()) % found.devices.size();
  const CudaDevice& own = found.devices[index];
  const std::vector<std::string> all = node.all_gather(own.bus_id);
  const auto sharing = std::count(all.begin(), all.end(), own.bus_id);
  std::int64_t most_sharing = sharing;
  world.all_max(std::span(&most_sharing, 1));
  log.info(fmt::format("device: GPUs; this rank computes on {} at {}", own.name, own.bus_id));
  log.warn("device: the CUDA backend has not been proved on a GPU yet; compare its results with --device cpu first");
  if (most_sharing > 1) {
    log.warn(
        fmt::format("device: up to {} ranks share a GPU: they wait for each other, and split its memory; start as "
                    "many ranks on a node as it has GPUs",
                    most_sharing));
  }
  return {static_cast<int>(index), own.memory_bytes / 10 * kUsableTenths / sharing, sharing > 1};
}

std::unique_ptr<Backend> make_backend(const Device& device, Compute compute, int threads, CpuIsa isa) {
  if (device.gpu < 0) return make_cpu_backend(compute, threads, isa);
  return make_cuda_backend(compute, device.gpu);
}

}  // namespace reap
