#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reap {

/// Throws Error(peer) naming `call` unless `status` is MPI_SUCCESS.
void check_mpi(int status, const char* call);

/// Owns a duplicate of an MPI communicator, so our messages never meet the caller's.
/// Construction, split and every all_* call are collective. MPI errors arrive as Error(peer).
class Comm {
 public:
  explicit Comm(MPI_Comm parent);
  ~Comm();
  Comm(Comm&& other) noexcept;
  Comm& operator=(Comm&&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm handle() const { return comm_; }  // for link_mpi only

  /// What to do again and again while this rank waits for others, in every call below and in every communicator split
  /// off, before or after. It may throw to give up the wait; the job has to end then. Empty = nothing.
  /// @return what was done before
  std::function<void()> on_wait(std::function<void()> hook) const;
  /// Does that once, for a thread that waits for something else than a rank.
  void idle() const;
  /// Waits until all `requests` are complete; they become MPI_REQUEST_NULL. Every wait for a peer ends up here.
  /// @param what  a literal, for the record of operations
  void wait(std::span<MPI_Request> requests, const char* what) const;
  /// Waits until `ready` returns true, calling it again and again. `ready` has to move transfers on (MPI_Test).
  void wait_until(const std::function<bool()>& ready, const char* what) const;
  /// Seconds that this process has spent waiting so, in all communicators that share the hook.
  double seconds_waited() const;

  Comm split(int colour) const;  // ranks keep their order
  Comm split_by_node() const;    // the ranks that share this node's memory

  void all_barrier() const;
  /// Adds up `values` over the ranks, in place. Integers only: float sums depend on the order.
  void all_sum(std::span<std::int64_t> values) const;
  /// The same on rank `root` only; the others keep their values.
  void all_sum_at(int root, std::span<std::int64_t> values) const;
  void all_max(std::span<float> values) const;
  void all_max(std::span<std::int64_t> values) const;
  void all_broadcast(int root, std::span<std::byte> bytes) const;
  std::string all_broadcast(int root, std::string text) const;
  /// Every rank's text, by rank, on every rank.
  std::vector<std::string> all_gather(const std::string& text) const;

  /// Runs `work` on every rank; when it throws on any, all ranks throw a SharedError with the message and
  /// exit code of the lowest such rank, so that none is left waiting in a collective. `work` itself must not meet other
  /// ranks.
  void all_try(const std::function<void()>& work) const;

 private:
  struct Waiting;  // what all communicators split from one share

  Comm(MPI_Comm owned, std::shared_ptr<Waiting> waiting);
  template <class T>
  void all_reduce(std::span<T> values, MPI_Datatype type, MPI_Op op, const char* what) const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::shared_ptr<Waiting> waiting_;
};

}  // namespace reap
