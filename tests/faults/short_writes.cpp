// Preloaded into one rank by faults.py: write and pwrite to files take only a part of what they are given, as they may.
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

namespace {

constexpr std::size_t kWhole = 64;  // so short ones stay whole

std::size_t shortened(int file, std::size_t size) {
  static std::atomic<unsigned> calls{0};
  struct stat status {};
  if (size <= kWhole || ::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) return size;
  return calls++ % 3 == 0 ? size : std::max(kWhole, size / 3);
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) ssize_t write(int file, const void* bytes, std::size_t size) {
  static const auto next = real<ssize_t (*)(int, const void*, std::size_t)>("write");
  return next(file, bytes, shortened(file, size));
}

__attribute__((visibility("default"))) ssize_t pwrite(int file, const void* bytes, std::size_t size, off_t offset) {
  static const auto next = real<ssize_t (*)(int, const void*, std::size_t, off_t)>("pwrite");
  return next(file, bytes, shortened(file, size), offset);
}
}
