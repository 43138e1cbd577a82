#include "driver/run_log.hpp"

#include <fmt/chrono.h>

#include <ctime>

#include "driver/atomic_file.hpp"
#include "driver/version.hpp"
#include "shard/host_name.hpp"
#include "shard/json.hpp"

namespace reap {
void all_write_run_log(Job& job, const std::filesystem::path& file) {
  const std::vector<std::string> hosts = job.world.all_gather(host_name());
  job.world.all_try([&] {
    if (job.world.rank() != 0) return;
    Json log;
    log["software"] = "reap_dist " + version();
    log["command"] = job.options.command;
    log["finished_utc"] = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
    for (const auto& [name, value] : job.options.effective) log["options"][name] = value;
    log["hosts"] = hosts;
    log["phases"] = Json::array();
    for (const Progress::Phase& p : job.progress.phases()) {
      log["phases"].push_back({{"name", p.name}, {"unit", p.unit}, {"units", p.units}, {"seconds", p.seconds}});
    }
    write_file_atomically(file, log.dump(2) + "\n");
  });
}

}  // namespace reap
