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
    if (sum_ != MPI_REQUEST_NULL) {
      int done = 0;
      check_mpi(MPI_Test(&sum_, &done, MPI_STATUS_IGNORE), "MPI_Test");
    }
    return !step_.busy() && sum_ == MPI_REQUEST_NULL;
  }

  void start(std::span<const DeviceMessage> sends, std::span<const DeviceMessage> receives) override {
    check_idle();
    for (const DeviceMessage& m : receives) {
      step_.start_receive(static_cast<std::byte*>(m.data), checked(m.bytes), m.peer, 0, comm_.handle());
    }
    for (const DeviceMessage& m : sends) {
      step_.start_send(static_cast<std::byte*>(m.data), checked(m.bytes), m.peer, 0, comm_.handle(), MPI_Issend);
    }
  }

  void start_sum(std::span<std::int64_t> values) override {
    check_idle();
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_INT64_T, MPI_SUM,
                             comm_.handle(), &sum_),
              "MPI_Iallreduce");
  }

 private:
  void check_idle() const {
    REAP_CHECK(!step_.busy() && sum_ == MPI_REQUEST_NULL, "a step before the last one is over");
  }
  static std::int64_t checked(std::int64_t bytes) {
    REAP_CHECK(bytes > 0, "a message of {} bytes", bytes);
    return bytes;
  }

  Comm comm_;
  Transfer step_;
  MPI_Request sum_ = MPI_REQUEST_NULL;
};

}  // namespace

std::unique_ptr<DeviceComm> connect_by_mpi(const Comm& comm) { return std::make_unique<MpiDeviceComm>(comm); }

}  // namespace reap::test
