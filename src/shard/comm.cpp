#include "shard/comm.hpp"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <utility>

#include "kernels/check.hpp"

namespace reap {
namespace {

// MPI 3 counts in int; pieces of this many bytes stay far below it and are large enough to run at full bandwidth.
constexpr std::size_t kPieceBytes = std::size_t{1} << 28;

/// Reduces `values` in place, piece by piece.
template <class T>
void all_reduce(MPI_Comm comm, std::span<T> values, MPI_Datatype type, MPI_Op op) {
  constexpr std::size_t kPiece = kPieceBytes / sizeof(T);
  for (std::size_t at = 0; at < values.size(); at += kPiece) {
    const auto count = static_cast<int>(std::min(kPiece, values.size() - at));
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + at, count, type, op, comm), "MPI_Allreduce");
  }
}

struct Failure {
  ExitCode code;
  std::string message;
};

/// What `work` throws, as an exit code and a message that starts with this rank's scopes.
std::optional<Failure> failure_of(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const Error& error) {
    return Failure{error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    const Error error(ExitCode::io, "out of memory; give each rank more memory, or use more ranks");
    return Failure{error.code(), error.what()};
  } catch (const std::filesystem::filesystem_error& exception) {
    const Error error(ExitCode::io, exception.what());
    return Failure{error.code(), error.what()};
  } catch (const std::exception& exception) {
    const Error error(ExitCode::bug, exception.what());
    return Failure{error.code(), error.what()};
  }
}

}  // namespace

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(status, text, &length) != MPI_SUCCESS) length = 0;
  fail(ExitCode::peer, "{} failed: {}; look for the first rank that ended", call,
       std::string_view(text, static_cast<std::size_t>(length)));
}

Comm::Comm(MPI_Comm parent) : comm_{MPI_COMM_NULL}, rank_{0}, size_{1} {
  check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

Comm::~Comm() {
  if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

Comm::Comm(Comm&& other) noexcept
    : comm_{std::exchange(other.comm_, MPI_COMM_NULL)}, rank_{other.rank_}, size_{other.size_} {}

Comm Comm::split(int colour) const {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm_, colour, rank_, &part), "MPI_Comm_split");
  return adopt(part);
}

Comm Comm::split_by_node() const {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part), "MPI_Comm_split_type");
  return adopt(part);
}

Comm Comm::adopt(MPI_Comm owned) {
  Comm comm(owned, 0, 1);
  check_mpi(MPI_Comm_set_errhandler(owned, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(owned, &comm.rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(owned, &comm.size_), "MPI_Comm_size");
  return comm;
}

void Comm::all_barrier() const { check_mpi(MPI_Barrier(comm_), "MPI_Barrier"); }

void Comm::all_sum(std::span<std::int64_t> values) const { all_reduce(comm_, values, MPI_INT64_T, MPI_SUM); }

void Comm::all_max(std::span<float> values) const { all_reduce(comm_, values, MPI_FLOAT, MPI_MAX); }

void Comm::all_max(std::span<std::int64_t> values) const { all_reduce(comm_, values, MPI_INT64_T, MPI_MAX); }

void Comm::all_broadcast(int root, std::span<std::byte> bytes) const {
  for (std::size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    const auto count = static_cast<int>(std::min(kPieceBytes, bytes.size() - at));
    check_mpi(MPI_Bcast(bytes.data() + at, count, MPI_BYTE, root, comm_), "MPI_Bcast");
  }
}

std::string Comm::all_broadcast(int root, std::string text) const {
  auto length = static_cast<std::uint64_t>(text.size());
  all_broadcast(root, std::as_writable_bytes(std::span(&length, 1)));
  text.resize(length);
  all_broadcast(root, std::as_writable_bytes(std::span(text)));
  return text;
}

std::vector<std::string> Comm::all_gather(const std::string& text) const {
  // Broadcasts in turn, not MPI_Allgatherv: its displacements are ints, and together the texts may pass 2 GiB.
  std::vector<std::string> texts;
  texts.reserve(static_cast<std::size_t>(size_));
  for (int root = 0; root < size_; ++root) texts.push_back(all_broadcast(root, root == rank_ ? text : std::string()));
  return texts;
}

void Comm::all_try(const std::function<void()>& work) const {
  const std::optional<Failure> mine = failure_of(work);
  std::int64_t first = mine ? -rank_ : -size_;  // the maximum of the negatives is the lowest failing rank
  all_max(std::span(&first, 1));
  const int root = static_cast<int>(-first);
  if (root == size_) return;
  auto code = mine ? static_cast<std::int64_t>(mine->code) : 0;
  all_broadcast(root, std::as_writable_bytes(std::span(&code, 1)));
  const std::string message = all_broadcast(root, mine ? mine->message : std::string());
  throw SharedError(static_cast<ExitCode>(code), message);
}

}  // namespace reap
