#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/backend.hpp"
#include "kernels/device_comm.hpp"
#include "shard/comm.hpp"
#include "shard/link_device.hpp"

namespace reap {

/// Adds up integers over all ranks: from device to device where those are connected, by MPI where not. Both give the
/// same.
class Summation {
 public:
  /// Collective over `world`. @param connect  empty: by MPI
  explicit Summation(const Comm& world, Backend& backend, const ConnectDevices& connect = {});

  const Comm& world() const { return world_; }
  /// Adds up `values` over the ranks, in place. Collective.
  void all_sum(std::span<std::int64_t> values);
  /// The same on rank 0 only; what the others have is lost. Collective.
  void all_sum_at_first(std::span<std::int64_t> values);

 private:
  void all_sum_on_devices(std::span<std::int64_t> values);
  void all_sum_piece();

  const Comm& world_;
  Backend& backend_;
  Buffer<std::int64_t> piece_;  // on its way through the devices
  std::unique_ptr<DeviceComm> devices_;
};

}  // namespace reap
