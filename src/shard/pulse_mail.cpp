#include "shard/pulse_mail.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "shard/comm.hpp"
#include "shard/operations.hpp"

namespace reap::pulse_mail {
namespace {

constexpr int kTag = 1;

/// Keeps what MPI may still read, to the end of the process.
void keep(std::unique_ptr<Message> message) {
  static std::vector<std::unique_ptr<Message>> kept;
  kept.push_back(std::move(message));
}

template <std::size_t N>
void copy_text(std::array<char, N>& to, const std::string& from) {
  std::memcpy(to.data(), from.data(), std::min(from.size(), N - 1));
}

}  // namespace

Message message_now(const Words& words) {
  const operations::Place place = operations::last();
  Message message;
  message.words = words;
  message.steps = place.count + place.moves;
  message.layer = place.layer;
  message.block = place.block;
  copy_text(message.phase, place.phase);
  copy_text(message.what, place.what);
  return message;
}

std::string place_of(const Message& message) {
  operations::Place place;
  place.phase = message.phase.data();
  place.what = message.what.data();
  place.layer = message.layer;
  place.block = message.block;
  return operations::text_of(place);
}

int receive(MPI_Comm comm, Message& message) {
  int arrived = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kTag, comm, &arrived, &status), "MPI_Iprobe");
  if (arrived == 0) return -1;
  check_mpi(MPI_Recv(&message, sizeof(Message), MPI_BYTE, status.MPI_SOURCE, kTag, comm, MPI_STATUS_IGNORE),
            "MPI_Recv");
  return status.MPI_SOURCE;
}

bool Sender::send(const Message& message, int to, MPI_Comm comm) {
  if (under_way()) return false;
  *message_ = message;
  check_mpi(MPI_Issend(message_.get(), sizeof(Message), MPI_BYTE, to, kTag, comm, &request_), "MPI_Issend");
  return true;
}

void Sender::send_last(const Message& message, int to, MPI_Comm comm) {
  let_go();
  message_ = std::make_unique<Message>(message);
  check_mpi(MPI_Isend(message_.get(), sizeof(Message), MPI_BYTE, to, kTag, comm, &request_), "MPI_Isend");
  let_go();
}

void Sender::let_go() {
  if (!under_way()) return;
  keep(std::move(message_));
  check_mpi(MPI_Request_free(&request_), "MPI_Request_free");
}

bool Sender::under_way() {
  int done = 1;
  if (request_ != MPI_REQUEST_NULL) check_mpi(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done == 0;
}

}  // namespace reap::pulse_mail
