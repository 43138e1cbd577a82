#include "driver/shared_memory.hpp"

#include <unistd.h>

#include <fstream>
#include <string>

namespace reap {

void remove_shared_memory_names() {
  // Every rank has mapped the memory of all ranks of its node; the names in the list of mappings are the job's own.
  std::ifstream mappings("/proc/self/maps");
  for (std::string line; std::getline(mappings, line);) {
    const std::size_t path = line.find('/');
    if (path == std::string::npos || line.find("/vader_segment.", path) == std::string::npos) continue;
    ::unlink(line.c_str() + path);  // another rank may have been faster
  }
}

}  // namespace reap
