#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "shard/comm.hpp"

namespace reap {

// MPI 3 counts in int: longer transfers go as several messages, which keep their order.
constexpr std::int64_t kMessageBytes = std::int64_t{1} << 30;

/// A transfer under way, as one or more messages.
class Transfer {
 public:
  explicit Transfer(std::int64_t message_bytes = kMessageBytes) : message_bytes_{message_bytes} {}

  /// @param send  MPI_Isend, or MPI_Issend, which is complete only when the receiver has a place for it
  void start_send(const std::byte* data, std::int64_t bytes, int peer, int tag, MPI_Comm comm,
                  decltype(&MPI_Isend) send = MPI_Isend) {
    for (std::int64_t at = 0; at < bytes; at += message_bytes_) {
      const auto count = static_cast<int>(std::min(message_bytes_, bytes - at));
      check_mpi(send(data + at, count, MPI_BYTE, peer, tag, comm, &requests_.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Isend");
    }
  }

  void start_receive(std::byte* data, std::int64_t bytes, int peer, int tag, MPI_Comm comm) {
    for (std::int64_t at = 0; at < bytes; at += message_bytes_) {
      const auto count = static_cast<int>(std::min(message_bytes_, bytes - at));
      check_mpi(MPI_Irecv(data + at, count, MPI_BYTE, peer, tag, comm, &requests_.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Irecv");
    }
  }

  void wait(const Comm& comm, const char* what) {
    comm.wait(requests_, what);
    requests_.clear();
  }

  void poke() {
    if (requests_.empty()) return;
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done != 0) requests_.clear();
  }

  bool busy() const { return !requests_.empty(); }

  /// Gives up receiving what nobody will send.
  void cancel() {
    for (MPI_Request& request : requests_) {
      check_mpi(MPI_Cancel(&request), "MPI_Cancel");
      check_mpi(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait");
    }
    requests_.clear();
  }

 private:
  std::int64_t message_bytes_;
  std::vector<MPI_Request> requests_;
};

}  // namespace reap
