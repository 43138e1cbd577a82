#include "shard/comm.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "kernels/check.hpp"
#include "shard/operations.hpp"

namespace reap {
namespace {

// MPI 3 counts in int; pieces of this many bytes stay far below it and are large enough to run at full bandwidth.
constexpr std::size_t kPieceBytes = std::size_t{1} << 28;

// A wait gives its core away between looks. When nothing has moved for long, it sleeps, so that a machine with more
// ranks than cores does not spend them on looking. But transfers move on only when looked at, and some by a fragment at
// a time: a look that costs processor time has moved one (32 kB: 6 us and more; nothing: 1 to 2 us), and keeps the wait
// awake.
constexpr std::chrono::milliseconds kAwake{2};
constexpr std::chrono::microseconds kNap{50};
constexpr std::chrono::microseconds kBusyLook{4};

using Clock = std::chrono::steady_clock;

/// Processor time of this thread.
std::chrono::nanoseconds processor_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
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

struct Comm::Waiting {
  std::function<void()> hook;
  bool inside = false;  // the hook's own waits neither call it again nor count twice
  std::chrono::duration<double> total{0};
  class Wait;
};

/// A wait under way, or an idle moment.
class Comm::Waiting::Wait {
 public:
  explicit Wait(Waiting& waiting) : waiting_{waiting}, outermost_{!std::exchange(waiting.inside, true)} {}
  ~Wait() {
    if (!outermost_) return;
    waiting_.inside = false;
    waiting_.total += Clock::now() - begin_;
  }
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  void call_hook() const {
    if (outermost_ && waiting_.hook) waiting_.hook();
  }

 private:
  Waiting& waiting_;
  bool outermost_;
  Clock::time_point begin_ = Clock::now();
};

Comm::Comm(MPI_Comm owned, std::shared_ptr<Waiting> waiting) : comm_{owned}, waiting_{std::move(waiting)} {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

namespace {

MPI_Comm duplicate(MPI_Comm parent) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(parent, &copy), "MPI_Comm_dup");
  return copy;
}

}  // namespace

Comm::Comm(MPI_Comm parent) : Comm(duplicate(parent), std::make_shared<Waiting>()) {}

Comm::~Comm() {
  if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

Comm::Comm(Comm&& other) noexcept
    : comm_{std::exchange(other.comm_, MPI_COMM_NULL)},
      rank_{other.rank_},
      size_{other.size_},
      waiting_{std::move(other.waiting_)} {}

Comm Comm::split(int colour) const {
  operations::note("split of the ranks");
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm_, colour, rank_, &part), "MPI_Comm_split");
  return {part, waiting_};
}

Comm Comm::split_by_node() const {
  operations::note("split of the ranks by node");
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part), "MPI_Comm_split_type");
  return {part, waiting_};
}

std::function<void()> Comm::on_wait(std::function<void()> hook) const {
  return std::exchange(waiting_->hook, std::move(hook));
}

void Comm::idle() const { Waiting::Wait(*waiting_).call_hook(); }

double Comm::seconds_waited() const { return waiting_->total.count(); }

void Comm::wait(std::span<MPI_Request> requests, const char* what) const {
  const auto count = static_cast<int>(requests.size());
  wait_until(
      [&] {
        int done = 0;
        check_mpi(MPI_Testall(count, requests.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
        return done != 0;
      },
      what);
}

void Comm::wait_until(const std::function<bool()>& ready, const char* what) const {
  operations::note(what);
  const Waiting::Wait wait(*waiting_);
  for (auto moved = Clock::now(); true;) {
    const auto before = processor_time();
    const bool over = ready();
    if (processor_time() - before > kBusyLook) moved = Clock::now();
    wait.call_hook();  // also when there was nothing to wait for: a rank that is always the last one beats here
    if (over) return;
    if (Clock::now() - moved < kAwake) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

void Comm::all_barrier() const {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier");
  wait(std::span(&request, 1), "wait for all ranks");
}

/// Reduces `values` in place, piece by piece.
template <class T>
void Comm::all_reduce(std::span<T> values, MPI_Datatype type, MPI_Op op, const char* what) const {
  constexpr std::size_t kPiece = kPieceBytes / sizeof(T);
  for (std::size_t at = 0; at < values.size(); at += kPiece) {
    const auto count = static_cast<int>(std::min(kPiece, values.size() - at));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, values.data() + at, count, type, op, comm_, &request), "MPI_Iallreduce");
    wait(std::span(&request, 1), what);
  }
}

void Comm::all_sum(std::span<std::int64_t> values) const {
  all_reduce(values, MPI_INT64_T, MPI_SUM, "sum over the ranks");
}

void Comm::all_sum_at(int root, std::span<std::int64_t> values) const {
  constexpr std::size_t kPiece = kPieceBytes / sizeof(std::int64_t);
  for (std::size_t at = 0; at < values.size(); at += kPiece) {
    const auto count = static_cast<int>(std::min(kPiece, values.size() - at));
    std::int64_t* const piece = values.data() + at;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ireduce(rank_ == root ? MPI_IN_PLACE : piece, rank_ == root ? piece : nullptr, count, MPI_INT64_T,
                          MPI_SUM, root, comm_, &request),
              "MPI_Ireduce");
    wait(std::span(&request, 1), "sum over the ranks");
  }
}

void Comm::all_max(std::span<float> values) const { all_reduce(values, MPI_FLOAT, MPI_MAX, "maximum over the ranks"); }

void Comm::all_max(std::span<std::int64_t> values) const {
  all_reduce(values, MPI_INT64_T, MPI_MAX, "maximum over the ranks");
}

void Comm::all_broadcast(int root, std::span<std::byte> bytes) const {
  for (std::size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    const auto count = static_cast<int>(std::min(kPieceBytes, bytes.size() - at));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(bytes.data() + at, count, MPI_BYTE, root, comm_, &request), "MPI_Ibcast");
    wait(std::span(&request, 1), "broadcast to all ranks");
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
