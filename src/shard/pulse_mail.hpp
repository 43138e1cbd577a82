#pragma once

#include <mpi.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace reap::pulse_mail {

using Words = std::array<std::int64_t, 4>;

/// What a rank tells rank 0, and rank 0 a rank. Plain memory: the ranks of a job run the same program.
struct Message {
  Words words{};
  std::int64_t steps = 0;  // operations and moves so far
  std::int64_t layer = -1, block = -1;
  std::array<char, 16> phase{};
  std::array<char, 48> what{};
  std::int64_t last = 0;  // 1 = nothing more will come
};

/// `words`, and where this rank is now.
Message message_now(const Words& words);

/// "observe, layer 17, block 123: experts"
std::string place_of(const Message& message);

/// The next message of any rank, if one has arrived. @return the rank it is of, or -1
int receive(MPI_Comm comm, Message& message);

/// Sends messages to one rank, the next when the one before was taken: to a rank that is busy none pile up.
class Sender {
 public:
  /// @return false when the one before is still under way
  bool send(const Message& message, int to, MPI_Comm comm);
  /// Sends the last message, and does not care whether it, or the one before, is ever taken.
  void send_last(const Message& message, int to, MPI_Comm comm);
  /// Leaves what is under way to itself.
  void let_go();

 private:
  bool under_way();

  std::unique_ptr<Message> message_ = std::make_unique<Message>();
  MPI_Request request_ = MPI_REQUEST_NULL;
};

}  // namespace reap::pulse_mail
