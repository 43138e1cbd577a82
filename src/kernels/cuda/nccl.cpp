#include "kernels/cuda/nccl.hpp"

#include <dlfcn.h>
#include <nccl.h>

#include <cstring>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/event.hpp"

namespace reap::cuda {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";

/// NCCL is opened when it is asked for: a machine with one GPU need not have it, and it takes 200 MB.
struct Library {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) init;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;
  decltype(&ncclAllReduce) all_reduce;
  decltype(&ncclGetErrorString) error_string;
};

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) fail_at(ExitCode::usage, std::string(kLibrary) + " has no " + name, __FILE__, __LINE__);
}

Library open_library() {
  void* const handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    fail_at(ExitCode::usage, std::string("NCCL cannot be used: ") + dlerror(), __FILE__, __LINE__);
  }
  Library library;
  find(handle, "ncclGetVersion", library.get_version);
  find(handle, "ncclGetUniqueId", library.get_unique_id);
  find(handle, "ncclCommInitRankConfig", library.init);
  find(handle, "ncclCommGetAsyncError", library.async_error);
  find(handle, "ncclCommAbort", library.abort);
  find(handle, "ncclCommDestroy", library.destroy);
  find(handle, "ncclGroupStart", library.group_start);
  find(handle, "ncclGroupEnd", library.group_end);
  find(handle, "ncclSend", library.send);
  find(handle, "ncclRecv", library.receive);
  find(handle, "ncclAllReduce", library.all_reduce);
  find(handle, "ncclGetErrorString", library.error_string);
  // Older ones differ in what a communicator that never blocks may be asked while another one is at work.
  int version = 0;
  library.get_version(&version);
  if (version < NCCL_VERSION_CODE) {
    fail_at(ExitCode::usage,
            std::string(kLibrary) + " is version " + std::to_string(version) + ", older than " +
                std::to_string(NCCL_VERSION_CODE) + ", which this program was built with",
            __FILE__, __LINE__);
  }
  return library;
}

const Library& nccl() {
  static const Library kNccl = open_library();
  return kNccl;
}

/// A communicator that never blocks returns ncclInProgress from calls that go on behind it.
void check_nccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  fail_at(ExitCode::peer, std::string("NCCL: ") + what + ": " + nccl().error_string(result), __FILE__, __LINE__);
}

class NcclComm final : public DeviceComm {
 public:
  NcclComm(int device, cudaStream_t backend, const std::string& id, int rank, int ranks)
      : device_{device}, backend_{backend} {
    ncclUniqueId unique;
    REAP_CUDA_REQUIRE(id.size() == sizeof unique, "an id of NCCL of another size");
    std::memcpy(&unique, id.data(), sizeof unique);
    make_current();
    REAP_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    REAP_CUDA(cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming));
    REAP_CUDA(cudaEventCreateWithFlags(&over_, cudaEventDisableTiming));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    check_nccl(nccl().init(&comm_, ranks, unique, rank, &config), "make a communicator");
  }

  ~NcclComm() override {
    // Destroying waits for what is under way, for ever when the peer is gone.
    static_cast<void>(state_ == State::idle ? nccl().destroy(comm_) : nccl().abort(comm_));
    cudaEventDestroy(queued_);
    cudaEventDestroy(over_);
    cudaStreamDestroy(stream_);
  }
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  bool ready() override {
    if (state_ == State::idle) return true;
    ncclResult_t now = ncclSuccess;
    check_nccl(nccl().async_error(comm_, &now), "ask for errors");
    check_nccl(now, "transfer between GPUs");
    if (now == ncclInProgress) return false;
    if (state_ == State::connecting) return become_idle();
    make_current();
    if (state_ == State::launching) {  // only now is all of the step in the stream
      REAP_CUDA(cudaEventRecord(over_, stream_));
      state_ = State::running;
    }
    return is_over(over_) && become_idle();
  }

  void start(std::span<const DeviceMessage> sends, std::span<const DeviceMessage> receives) override {
    if (sends.empty() && receives.empty()) return;
    follow_backend();
    state_ = State::launching;  // from here on an error leaves something to abort
    check_nccl(nccl().group_start(), "begin a step");
    ncclResult_t queued = ncclSuccess;
    const auto queue = [&](auto call, const DeviceMessage& m) {
      if (queued != ncclSuccess && queued != ncclInProgress) return;
      queued = call(m.data, static_cast<std::size_t>(m.bytes), ncclInt8, m.peer, comm_, stream_);
    };
    for (const DeviceMessage& m : receives) queue(nccl().receive, m);
    for (const DeviceMessage& m : sends) queue(nccl().send, m);
    const ncclResult_t ended = nccl().group_end();  // whatever came: nothing works inside a group that is left open
    check_nccl(queued, "queue a step");
    check_nccl(ended, "end a step");
  }

  void start_sum(std::span<std::int64_t> values) override {
    if (values.empty()) return;
    follow_backend();
    state_ = State::launching;
    check_nccl(nccl().all_reduce(values.data(), values.data(), values.size(), ncclInt64, ncclSum, comm_, stream_),
               "add up over the ranks");
  }

 private:
  enum class State { connecting, idle, launching, running };

  void make_current() const { REAP_CUDA(cudaSetDevice(device_)); }

  bool become_idle() {
    state_ = State::idle;
    return true;
  }

  void follow_backend() {
    REAP_CUDA_REQUIRE(state_ == State::idle, "a step before the last one is over");
    make_current();
    REAP_CUDA(cudaEventRecord(queued_, backend_));
    REAP_CUDA(cudaStreamWaitEvent(stream_, queued_, 0));
  }

  int device_;
  cudaStream_t backend_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t queued_ = nullptr;  // what the backend was told before the step
  cudaEvent_t over_ = nullptr;
  ncclComm_t comm_ = nullptr;
  State state_ = State::connecting;
};

}  // namespace

std::string new_comm_id() {
  ncclUniqueId id;
  check_nccl(nccl().get_unique_id(&id), "name a communicator");
  return std::string(reinterpret_cast<const char*>(&id), sizeof id);
}

std::unique_ptr<DeviceComm> make_nccl_comm(int device, cudaStream_t stream, const std::string& id, int rank,
                                           int ranks) {
  return std::make_unique<NcclComm>(device, stream, id, rank, ranks);
}

}  // namespace reap::cuda
