#include "driver/side_files.hpp"

#include <string_view>

#include "driver/manifest.hpp"

namespace reap {

std::vector<std::string> inherited_side_files(const Checkpoint& source) {
  std::vector<std::string> names = source.side_files();
  std::erase_if(names, [](std::string_view name) { return name == kManifestName || name == "run_log.json"; });
  return names;
}

}  // namespace reap
