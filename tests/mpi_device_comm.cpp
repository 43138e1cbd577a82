#include "mpi_device_comm.hpp"

#include <mpi.h>

#include <vector>

#include "kernels/check.hpp"
#include "shard/transfer.hpp"

namespace reap::test {
namespace {

class MpiDeviceComm final : public DeviceComm {
 public:
  explicit MpiDeviceComm(const Comm& comm) : comm_{comm.split(0)} {}

  bool ready() override {
    step_.poke();
    return !step_.busy();
  }

  void start(std::span<const DeviceMessage> sends, std::span<const DeviceMessage> receives) override {
    REAP_CHECK(!step_.busy(), "a step before the last one is over");
    for (const DeviceMessage& m : receives) {
      step_.start_receive(static_cast<std::byte*>(m.data), checked(m.bytes), m.peer, 0, comm_.handle());
    }
    for (const DeviceMessage& m : sends) {
      step_.start_send(static_cast<std::byte*>(m.data), checked(m.bytes), m.peer, 0, comm_.handle(), MPI_Issend);
    }
  }

 private:
  static std::int64_t checked(std::int64_t bytes) {
    REAP_CHECK(bytes > 0, "a message of {} bytes", bytes);
    return bytes;
  }

  Comm comm_;
  Transfer step_;
};

}  // namespace

std::unique_ptr<DeviceComm> connect_by_mpi(const Comm& comm) { return std::make_unique<MpiDeviceComm>(comm); }

}  // namespace reap::test
