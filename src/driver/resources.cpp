#include "driver/resources.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace reap {
namespace {

/// The cores this process may run on, as text that is equal for equal sets.
std::string own_cores(int& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    return "all";
  }
  cores = CPU_COUNT(&set);
  std::string text;
  for (int core = 0; core < CPU_SETSIZE; ++core) text += CPU_ISSET(core, &set) ? '1' : '0';
  return text;
}

/// The lowest memory limit of this process's control groups (version 2, as Slurm and containers set them), or 0. Slurm
/// limits the job and its steps, so the groups above count too.
std::int64_t cgroup_limit() {
  std::ifstream self("/proc/self/cgroup");
  std::string line;
  std::int64_t lowest = 0;
  while (std::getline(self, line)) {
    if (!line.starts_with("0::/")) continue;
    for (std::filesystem::path group = line.substr(3);; group = group.parent_path()) {
      std::ifstream file("/sys/fs/cgroup" + group.string() + "/memory.max");
      std::int64_t bytes = 0;
      if (file >> bytes) lowest = lowest == 0 ? bytes : std::min(lowest, bytes);  // "max" is no number
      if (group == group.parent_path()) break;
    }
  }
  return lowest;
}

/// A size of this process in bytes, or 0.
std::int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kilobytes = 0;
    if (word == key && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

}  // namespace

// Writing 5 there lowers the peak that the system remembers to what the process has now.
MemoryGrowth::MemoryGrowth() : before_{status_bytes("VmRSS:")} { std::ofstream("/proc/self/clear_refs") << "5"; }

std::int64_t MemoryGrowth::peak_bytes() const { return std::max<std::int64_t>(0, status_bytes("VmHWM:") - before_); }

Resources all_find_resources(const Comm& world, Log& log) {
  const Comm node = world.split_by_node();
  int cores = 1;
  const std::string mine = own_cores(cores);
  const std::vector<std::string> all = node.all_gather(mine);
  const auto sharing = static_cast<int>(std::count(all.begin(), all.end(), mine));

  Resources r;
  r.ranks_on_node = node.size();
  r.threads = std::max(1, cores / sharing);
  const auto online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  if (r.threads < online / node.size()) {
    log.warn(
        fmt::format("{} of the node's {} cores for each of its {} ranks: the launcher binds them; "
                    "mpirun --bind-to none, or srun --cpus-per-task, gives them their share",
                    r.threads, online, node.size()));
  }
  std::int64_t memory = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  if (const std::int64_t limit = cgroup_limit(); limit > 0) memory = std::min(memory, limit);
  r.memory_bytes = memory / 5 * 4 / node.size();
  return r;
}

}  // namespace reap
