#pragma once

#include <array>
#include <vector>

#include "kernels/cpu/ops.hpp"
#include "kernels/cpu/packed_weight.hpp"

namespace reap::cpu {

/// Rows of a task; enough to make expanding a panel for it cheap, few enough that large products feed all threads.
/// A multiple of every row_tile().
constexpr std::int64_t kChunkRows = 576;

/// Rows of activations on their way into products.
struct RowSource {
  const void* data;  // [.., cols]
  DType dtype;       // f32 or bf16
  std::int64_t cols;
  const std::int32_t* index;  // the row of data at each place, or null: rows follow each other
};

/// One thread's memory for products, kept from call to call. Slots 0 and 1 serve two products of the same rows.
class Worker {
 public:
  /// Makes room for products with `weight` in `slot`. Outside parallel regions, where running out of memory may throw.
  void prepare(int slot, const PackedWeight& weight);

  /// The product with a panel of `weight`, expanded for it; results appear in out(slot).
  TileProduct::Call call(int slot, const PackedWeight& weight, std::int64_t panel);
  float* out(int slot) const { return out_[static_cast<std::size_t>(slot)].data(); }

  /// Places [first, first + count) of `source` as the tile that `product` takes, padded with zeros: in place where the
  /// rows lie as the product takes them, else a copy.
  const void* tile(const Run& run, const RowSource& source, std::int64_t first, std::int64_t count,
                   const TileProduct& product);

 private:
  Buffer<std::byte> x_;
  std::array<Buffer<std::byte>, 2> weights_;
  std::array<Buffer<float>, 2> out_;
  std::array<Buffer<std::byte>, 2> scratch_;
};

/// The workers of a backend, one per thread.
class Workers {
 public:
  explicit Workers(int threads) : workers_(static_cast<std::size_t>(threads)) {}
  void prepare(int slot, const PackedWeight& weight);
  /// The calling thread's, on entry to a parallel region.
  Worker& enter();

 private:
  std::vector<Worker> workers_;
};

/// Enlarges `buffer` to `size` elements, losing what it held, unless it is that large.
template <class T>
void reserve(Buffer<T>& buffer, std::int64_t size) {
  if (buffer.size() < size) buffer = Buffer<T>(host_memory, size);
}

}  // namespace reap::cpu
