#pragma once

#include <cstdint>
#include <span>

namespace reap {

/// Bytes in a backend's memory, on their way to or from another rank.
struct DeviceMessage {
  void* data;
  std::int64_t bytes;  // above 0, the same on both ranks
  int peer;
};

/// Transfers between the backends of some ranks that do not pass through host memory: NCCL. They go in steps, one at a
/// time, which the ranks concerned take in the same order. The backend outlives it.
class DeviceComm {
 public:
  virtual ~DeviceComm() = default;  // gives up a step that is not over

  /// Whether the last step is over on this rank, and at first whether all ranks have come together.
  /// @throws Error(peer) when another rank is lost or the transport fails
  virtual bool ready() = 0;

  /// Starts a step when ready(). It reads and writes after all that the backend was told before. What came can be used
  /// when ready() again. Messages between two ranks keep the order that they are named in.
  virtual void start(std::span<const DeviceMessage> sends, std::span<const DeviceMessage> receives) = 0;

  /// The same for a step of all ranks: adds up `values` over them, in place.
  /// @param values  in the backend's memory, as many on every rank
  virtual void start_sum(std::span<std::int64_t> values) = 0;
};

}  // namespace reap
