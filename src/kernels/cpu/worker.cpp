#include "kernels/cpu/worker.hpp"

#include <omp.h>

#include <cstring>

namespace reap::cpu {

void Worker::prepare(int slot, const PackedWeight& weight) {
  const TileProduct& product = weight.product(0);  // no panel is larger than the first
  const auto element = static_cast<std::int64_t>(size_of(product.dtype()));
  const auto at = static_cast<std::size_t>(slot);
  reserve(x_, product.tile() * product.cols() * element);
  reserve(out_[at], product.tile() * product.rows());
  for (std::int64_t panel : {std::int64_t{0}, weight.panels() - 1}) {
    reserve(scratch_[at], weight.product(panel).scratch_bytes());
  }
  if (!weight.in_place()) reserve(weights_[at], product.cols() * product.rows() * element);
}

TileProduct::Call Worker::call(int slot, const PackedWeight& weight, std::int64_t panel) {
  const auto at = static_cast<std::size_t>(slot);
  return {weight.product(panel), weight.expanded(panel, weights_[at].data()), out_[at].data(), scratch_[at].data()};
}

const void* Worker::tile(const Run& run, const RowSource& source, std::int64_t first, std::int64_t count,
                         const TileProduct& product) {
  const std::size_t from_bytes = static_cast<std::size_t>(source.cols) * size_of(source.dtype);
  const std::size_t to_bytes = static_cast<std::size_t>(product.cols()) * size_of(product.dtype());
  const auto* const from = static_cast<const std::byte*>(source.data);
  if (source.index == nullptr && count == product.tile() && source.dtype == product.dtype() && from_bytes == to_bytes) {
    return from + static_cast<std::size_t>(first) * from_bytes;
  }
  for (std::int64_t place = 0; place < count; ++place) {
    const std::int64_t row = source.index == nullptr ? first + place : source.index[first + place];
    const std::byte* const x = from + static_cast<std::size_t>(row) * from_bytes;
    std::byte* const to = x_.data() + static_cast<std::size_t>(place) * to_bytes;
    std::size_t written = from_bytes;
    if (source.dtype == product.dtype()) {
      std::memcpy(to, x, from_bytes);
    } else {  // bf16 activations on a processor that multiplies f32 only
      run.vector.bf16_to_f32(reinterpret_cast<const bf16*>(x), source.cols, reinterpret_cast<float*>(to));
      written *= 2;
    }
    std::memset(to + written, 0, to_bytes - written);
  }
  std::memset(x_.data() + static_cast<std::size_t>(count) * to_bytes, 0,
              static_cast<std::size_t>(product.tile() - count) * to_bytes);
  return x_.data();
}

void Workers::prepare(int slot, const PackedWeight& weight) {
  for (Worker& worker : workers_) worker.prepare(slot, weight);
}

Worker& Workers::enter() {
  omp_set_num_threads(1);  // this thread's own setting: its products must not start threads
  return workers_[static_cast<std::size_t>(omp_get_thread_num())];
}

}  // namespace reap::cpu
