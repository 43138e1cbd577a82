#pragma once

#include <cstdint>
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "kernels/backend.hpp"

namespace reap::cpu {

/// out = x w^T for one tile of rows and one panel of weights: the only shape of product that oneDNN is asked for, made
/// once and used for every tile, because its bits depend on the shape. Products run on the calling thread.
///
/// Weights enter in the order that oneDNN likes best. That order is opaque, so it is learnt, once per shape, by sending
/// element numbers through oneDNN's own reordering; any element type can then be laid out by it.
class TileProduct {
 public:
  /// Columns and rows of a panel are padded with zeros to multiples of this, which the blocks of all of oneDNN's orders
  /// divide: they then hold no gaps, and no block straddles two scale blocks.
  static constexpr std::int64_t kAlign = 64;
  static constexpr std::int32_t kPadding = INT32_MAX;

  /// @param dtype  of x and w, f32 or bf16
  /// @param tile   rows of x and out
  /// @param cols   of x and w before padding
  /// @param rows   of w before padding
  TileProduct(DType dtype, std::int64_t tile, std::int64_t cols, std::int64_t rows);

  DType dtype() const { return dtype_; }
  std::int64_t tile() const { return tile_; }
  std::int64_t cols() const { return cols_; }  // padded: x is [tile, cols]
  std::int64_t rows() const { return rows_; }  // padded: out is [tile, rows]
  std::int64_t scratch_bytes() const { return static_cast<std::int64_t>(scratch_.get_size()); }

  /// [cols * rows] the element of the row-major, unpadded panel at each place of the packed one, or kPadding.
  const std::vector<std::int32_t>& order() const { return order_; }

  /// The most consecutive packed places, always from a multiple of it, whose elements share a square of kScaleBlock.
  std::int64_t scale_run() const { return scale_run_; }

  /// The product with its operands at hand. One per thread and panel; x changes from tile to tile.
  class Call {
   public:
    /// @param weights  [cols * rows] of dtype in order()
    /// @param scratch  scratch_bytes(), 64-byte aligned
    Call(const TileProduct& product, const void* weights, float* out, void* scratch);
    void operator()(const void* x) const;

   private:
    const TileProduct* product_;
    dnnl::memory x_, weights_, out_, scratch_;
  };

 private:
  void learn_order(std::int64_t cols, std::int64_t rows);
  void find_scale_run(std::int64_t cols);

  DType dtype_;
  std::int64_t tile_;
  std::int64_t cols_;
  std::int64_t rows_;
  dnnl::memory::desc x_, weights_, out_, scratch_;
  dnnl::primitive primitive_;
  std::vector<std::int32_t> order_;
  std::int64_t scale_run_ = 0;
};

/// The products made so far; asked for by several threads.
class TileProducts {
 public:
  explicit TileProducts(std::int64_t tile) : tile_{tile} {}
  std::int64_t tile() const { return tile_; }
  std::shared_ptr<const TileProduct> get(DType dtype, std::int64_t cols, std::int64_t rows);

 private:
  std::int64_t tile_;
  std::mutex mutex_;
  std::map<std::tuple<DType, std::int64_t, std::int64_t>, std::shared_ptr<const TileProduct>> products_;
};

}  // namespace reap::cpu
