#pragma once

#include <cstdint>

#include "kernels/buffer.hpp"

namespace reap {

/// Makes room for `size` elements. A buffer that has to grow loses its contents.
template <class T>
void make_room(Buffer<T>& buffer, const Memory& memory, std::int64_t size) {
  if (buffer.size() >= size) return;
  buffer = {};  // the old memory goes back first
  buffer = Buffer<T>(memory, size);
}

}  // namespace reap
