#include "driver/probe.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/buffer.hpp"
#include "kernels/check.hpp"

namespace reap {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 0.5;                  // of each measurement
constexpr double kProductFlops = 4e9;             // of a call: much work for each meeting of the threads
constexpr double kPassShare = 0.9;                // of the product's rate, by docs/performance.md
constexpr std::int64_t kFileBytes = 256'000'000;  // written
constexpr std::int64_t kMostRead = 1'000'000'000;
constexpr std::int64_t kPiece = std::int64_t{4} << 20;
constexpr std::int64_t kMemoryBytes = std::int64_t{128} << 20;  // per thread; beyond what caches hold
constexpr std::int64_t kMessageBytes = std::int64_t{16} << 20;
constexpr int kPings = 100;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Calls `work` until the time is up. @return seconds of a call
template <class Work>
double seconds_of(Work&& work) {
  work();  // the first call makes buffers and products
  const Clock::time_point start = Clock::now();
  std::int64_t calls = 0;
  do {
    work();
    ++calls;
  } while (seconds_since(start) < kSeconds);
  return seconds_since(start) / static_cast<double>(calls);
}

struct Rates {
  double products = 0, layout = 0;
};

/// One expert's first matrix, in bf16, and enough rows.
Rates product_rates(const Model& model, Backend& backend) {
  const std::int64_t rows = model.expert.inner, cols = model.hidden;
  const auto many = static_cast<std::int64_t>(kProductFlops / (2.0 * static_cast<double>(rows * cols))) + 1;
  const std::vector<std::byte> weights(static_cast<std::size_t>(rows * cols * 2));
  const WeightSource source{weights.data(), DType::bf16, rows, cols, nullptr};
  std::unique_ptr<Weight> weight;
  Rates rates;
  rates.layout =
      static_cast<double>(weights.size()) / seconds_of([&] { weight = backend.pack(source, backend.compute()); });
  const auto element = static_cast<std::int64_t>(size_of(activation_dtype(backend.compute())));
  const Buffer<std::byte> x(backend.memory(), many * cols * element);
  const Buffer<float> out(backend.memory(), many * rows);
  backend.zero(x.data(), static_cast<std::size_t>(x.bytes()));
  const double seconds = seconds_of([&] {
    backend.matmul(x.data(), many, *weight, out.data(), false);
    backend.synchronize();
  });
  rates.products = kPassShare * 2 * static_cast<double>(many * rows * cols) / seconds;
  return rates;
}

/// Bytes a second that all threads together read and write while copying.
double memory_rate(int threads) {
  std::vector<double> rates(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> copiers;
    for (double& rate : rates) {
      copiers.emplace_back([&rate] {
        const std::vector<std::byte> from(kMemoryBytes, std::byte{1});
        std::vector<std::byte> to(kMemoryBytes);
        rate =
            2 * static_cast<double>(kMemoryBytes) / seconds_of([&] { std::memcpy(to.data(), from.data(), to.size()); });
      });
    }
  }
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

struct Descriptor {
  int fd;
  explicit Descriptor(int opened) : fd{opened} {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

struct ReadRate {
  double bytes_per_second = 0;  // 0 = there was nothing to read
  bool direct = true;           // past the page cache
};

/// Reads the files of `folder` whose turn it is, so that ranks read different ones where there are enough.
ReadRate read_rate(const std::filesystem::path& folder, int rank) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() == ".safetensors") files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  ReadRate result;
  const Buffer<std::byte> piece(host_memory, kPiece + 4096);
  auto address = reinterpret_cast<std::uintptr_t>(piece.data());
  std::byte* const aligned = piece.data() + ((address + 4095) / 4096 * 4096 - address);
  const Clock::time_point start = Clock::now();
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < files.size() && bytes < kMostRead && seconds_since(start) < 2 * kSeconds; ++i) {
    const std::filesystem::path& file = files[(i + static_cast<std::size_t>(rank)) % files.size()];
    Descriptor open_file(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    if (open_file.fd < 0) {
      result.direct = false;
      open_file.fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    }
    ssize_t got = 1;
    for (std::int64_t at = 0; got > 0 && bytes < kMostRead && seconds_since(start) < 2 * kSeconds; at += got) {
      got = ::pread(open_file.fd, aligned, kPiece, at);
      bytes += std::max<ssize_t>(got, 0);
      if (got < kPiece) break;  // the end; a direct read must not go on from an odd place
    }
  }
  if (bytes > 0) result.bytes_per_second = static_cast<double>(bytes) / seconds_since(start);
  return result;
}

double write_rate(const std::filesystem::path& folder, int rank) {
  std::string name = (folder / fmt::format("reap-probe-{}-XXXXXX", rank)).string();
  const Descriptor file(::mkostemp(name.data(), O_CLOEXEC));
  if (file.fd < 0) fail(ExitCode::io, "--probe: no file can be made in {}: {}", folder.string(), std::strerror(errno));
  ::unlink(name.c_str());
  const std::vector<std::byte> piece(kPiece, std::byte{0x5a});
  const Clock::time_point start = Clock::now();
  std::int64_t bytes = 0;
  while (bytes < kFileBytes && seconds_since(start) < 2 * kSeconds) {
    const ssize_t put = ::write(file.fd, piece.data(), piece.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail(ExitCode::io, "--probe: writing in {} failed: {}", folder.string(), std::strerror(errno));
    bytes += put;
  }
  if (::fsync(file.fd) != 0)
    fail(ExitCode::io, "--probe: fsync in {} failed: {}", folder.string(), std::strerror(errno));
  return static_cast<double>(bytes) / seconds_since(start);
}

/// The mean and the sum over the ranks of a rate that each has measured; 0 on any rank makes both 0.
std::array<double, 2> all_mean_and_sum(const Comm& world, double rate) {
  std::array<std::int64_t, 2> sums{static_cast<std::int64_t>(rate), rate > 0 ? 0 : 1};
  world.all_sum(sums);
  const double sum = sums[1] > 0 ? 0 : static_cast<double>(sums[0]);
  return {sum / world.size(), sum};
}

/// Between ranks 0 and 1: a small message both ways, and a large one.
void all_probe_link(const Comm& world, Machine& machine) {
  if (world.size() == 1) return;
  const Comm pair = world.split(world.rank() < 2 ? 0 : 1);
  std::array<std::int64_t, 2> measured{0, 0};  // bytes per second, nanoseconds
  if (world.rank() < 2) {
    std::vector<std::byte> message(kMessageBytes);
    pair.all_barrier();
    Clock::time_point start = Clock::now();
    for (int ping = 0; ping < kPings; ++ping) {
      for (const int root : {0, 1}) pair.all_broadcast(root, std::span(message).first(1));
    }
    measured[1] = static_cast<std::int64_t>(seconds_since(start) / (2 * kPings) * 1e9);
    start = Clock::now();
    for (int turn = 0; turn < 10; ++turn) pair.all_broadcast(turn % 2, message);
    measured[0] = static_cast<std::int64_t>(10.0 * static_cast<double>(kMessageBytes) / seconds_since(start));
  }
  world.all_max(measured);
  set_value(machine, "link", static_cast<double>(measured[0]) / 1e9, "measured, ranks 0 and 1");
  set_value(machine, "latency", static_cast<double>(measured[1]) / 1e3, "measured, ranks 0 and 1");
}

}  // namespace

void all_probe(const Comm& world, const Model& model, Backend& backend, int threads, const ProbeFolders& folders,
               Machine& machine) {
  Rates rates;
  double memory = 0, written = 0;
  ReadRate read;
  world.all_try([&] { rates = product_rates(model, backend); });
  world.all_barrier();
  world.all_try([&] { memory = memory_rate(threads); });
  world.all_barrier();
  world.all_try([&] { read = read_rate(folders.read, world.rank()); });
  world.all_barrier();
  world.all_try([&] { written = write_rate(folders.write, world.rank()); });

  const std::string ranks = world.size() == 1 ? "measured, one rank" : fmt::format("measured, {} ranks", world.size());
  const auto set = [&](std::string_view key, std::string_view total, double rate, const std::string& how) {
    const auto [mean, sum] = all_mean_and_sum(world, rate);
    if (mean <= 0) return;
    set_value(machine, key, mean / 1e9, ranks + how);
    // One rank does not tell what several get together; but all together never get less.
    if (!total.empty() && world.size() > 1) set_value(machine, total, sum / 1e9, ranks + how);
  };
  set(backend.compute() == Compute::bf16 ? "bf16" : "fp32", "", rates.products, "");
  set("layout", "", rates.layout, "");
  set("memory-rate", "", memory, "");
  set("read", "read-total", read.bytes_per_second, read.direct ? "" : ", page cache included");
  set("write", "write-total", written, "");
  machine.read_total = std::max(machine.read_total, machine.read);
  machine.write_total = std::max(machine.write_total, machine.write);
  all_probe_link(world, machine);
}

}  // namespace reap
