#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace reap {

/// A place bytes can live: host memory, and with a GPU pinned and device memory.
struct Memory {
  const char* name;
  void* (*allocate)(std::size_t bytes);  // 64-byte aligned; throws Error(io) saying how much was asked for
  void (*release)(void*) noexcept;
};

extern const Memory host_memory;

/// Owns `size` elements of T in one Memory. Contents start uninitialised. Move-only: a copy is a transfer and has a verb.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  Buffer(const Memory& memory, std::int64_t size)
      : data_{static_cast<T*>(memory.allocate(static_cast<std::size_t>(size) * sizeof(T))), memory.release},
        size_{size} {}
  T* data() const { return data_.get(); }
  std::int64_t size() const { return data_ ? size_ : 0; }  // 0 once moved from
  std::int64_t bytes() const { return size() * static_cast<std::int64_t>(sizeof(T)); }

 private:
  std::unique_ptr<T, void (*)(void*) noexcept> data_{nullptr, nullptr};
  std::int64_t size_ = 0;
};

}  // namespace reap
