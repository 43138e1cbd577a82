#include "driver/transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/cuda_module.hpp"

namespace reap {
namespace {

/// Why this rank cannot use NCCL, or "".
std::string lack_of_nccl(const Device& device) {
  if (device.gpu < 0) return "it computes on CPUs";
  if (device.shared) return "it shares its GPU with another rank";
  try {
    static_cast<void>(new_device_comm_id());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::unique_ptr<DeviceComm> all_connect(const Comm& comm, Backend& backend) {
  std::string id;
  comm.all_try([&] {
    if (comm.rank() == 0) id = new_device_comm_id();
  });
  id = comm.all_broadcast(0, id);
  std::unique_ptr<DeviceComm> devices;
  comm.all_try([&] { devices = make_device_comm(backend, id, comm.rank(), comm.size()); });
  comm.wait_until([&] { return devices->ready(); }, "connect GPUs");
  return devices;
}

}  // namespace

ConnectDevices all_choose_transport(const Comm& world, TransportChoice wanted, const Device& device, Backend& backend,
                                    Log& log) {
  if (wanted == TransportChoice::mpi || world.size() == 1) return {};
  const std::vector<std::string> lacks = world.all_gather(lack_of_nccl(device));
  const auto lacking = std::ranges::find_if(lacks, [](const std::string& lack) { return !lack.empty(); });
  if (lacking == lacks.end()) {
    log.warn("transport: NCCL, which has not been proved between GPUs yet; --transport mpi goes without it");
    return [&backend](const Comm& comm) { return all_connect(comm, backend); };
  }
  const std::string why = fmt::format("rank {} cannot use NCCL: {}", lacking - lacks.begin(), *lacking);
  world.all_try([&] {
    if (wanted == TransportChoice::nccl) fail(ExitCode::usage, "--transport nccl: {}", why);
  });
  if (device.gpu >= 0) log.info(fmt::format("transport: MPI; {}", why));
  return {};
}

}  // namespace reap
