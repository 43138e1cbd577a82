#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace reap {

/// Does work(0) ... work(count - 1) on threads of their own, at most `workers` of them at the same time, begun in order.
/// When one throws, no further one begins.
/// @param idle  what the calling thread does meanwhile, again and again; when it throws, no further work begins either
/// @throws the first error, once all have ended
void for_each_concurrently(std::size_t count, std::size_t workers, const std::function<void(std::size_t index)>& work,
                           const std::function<void()>& idle = {});

/// `report` for use by several threads: they call it one at a time. An empty one stays empty.
std::function<void(std::int64_t)> serialised(const std::function<void(std::int64_t)>& report);

}  // namespace reap
